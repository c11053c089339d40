"""Documents of the embedded world: written once, read back through the source that reads the user's own."""

from pathlib import Path

from vlmtrain.data.scenes.documents import VERSION, MakeDocument
from vlmtrain.data.scenes.formats import LinesFormat
from vlmtrain.data.scenes.write import Layout, prepare
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.interleaved import DOCUMENTS_FILE, InterleavedDocuments


class SceneDocuments:
    """Three or four pictures of up to `max_things` things, each followed by its caption.

    Asked to go on after the last picture, a model has to tell of that one and not of those before it.
    """

    together = 1

    def __init__(
        self,
        folder: str,
        seed: int = 0,
        num_train: int = 4000,
        num_test: int = 400,
        num_compositional: int = 400,
        num_processes: int = 2,
        max_things: int = 1,
        image_size: int = 128,
    ) -> None:
        if not 1 <= max_things <= 3:
            raise ValueError(f"max_things={max_things}: a picture shows one to three things")
        format = LinesFormat(f"documents of {max_things} things", DOCUMENTS_FILE, MakeDocument(max_things))
        counts = {"train": num_train, "test": num_test, "compositional": num_compositional}
        present = {split: count for split, count in counts.items() if count > 0}
        place = Path(folder).expanduser() / f"version-{VERSION}"
        prepare(place, format, seed, present, num_processes, Layout(image_size))
        self.train: Source = InterleavedDocuments(str(place / "train"))
        self.evaluation: dict[str, Source] = {
            split: InterleavedDocuments(str(place / split)) for split in present if split != "train"
        }
