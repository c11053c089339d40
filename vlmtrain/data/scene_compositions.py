"""Composed retrieval in the embedded world: images without captions to learn from, queries of an image and words."""

from pathlib import Path
from typing import Any

from vlmtrain.data.scenes.compositions import CANDIDATES, VERSION, make_candidate, make_query
from vlmtrain.data.scenes.formats import LinesFormat
from vlmtrain.data.scenes.write import Layout, prepare
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.jsonl import CAPTIONS_FILE, JsonLines
from vlmtrain.data.without_captions import WithoutCaptions


class SceneCompositions:
    """Trains on the images of `images` alone; every held-out split has queries, and candidates in `<split>_candidates`.

    `test` follows the rules of training; the targets of `compositional` have colour-shape pairs or relations that are
    new.  Queries and candidates lie in folders of images with a captions.jsonl, as data of the user's own may.
    """

    def __init__(
        self,
        folder: str,
        images: Any,
        seed: int = 0,
        num_test: int = 250,
        num_compositional: int = 250,
        num_processes: int = 2,
    ) -> None:
        self.together: int = images.together
        self.train: Source = WithoutCaptions(images.train)
        counts = {"test": num_test, "compositional": num_compositional}
        present = {split: count for split, count in counts.items() if count > 0}
        self.evaluation: dict[str, Source] = {}
        place = Path(folder).expanduser() / f"compositions-version-{VERSION}"
        kinds = {
            "": LinesFormat("composed queries", CAPTIONS_FILE, make_query),
            "_candidates": LinesFormat("candidates of composed queries", CAPTIONS_FILE, make_candidate),
        }
        for ending, format in kinds.items():
            each = CANDIDATES if ending else 1
            target = place / (ending.strip("_") or "queries")
            sizes = {split: each * count for split, count in present.items()}
            if sizes:
                prepare(target, format, seed, sizes, num_processes, Layout())
            self.evaluation |= {f"{split}{ending}": JsonLines(str(target / split)) for split in sizes}
