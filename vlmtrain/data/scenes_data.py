"""The embedded world as data: written once in a real format, read back through the ordinary sources."""

from pathlib import Path
from typing import Literal

from vlmtrain.data.asking import OneByOne
from vlmtrain.data.scenes.text import instructed, retold
from vlmtrain.data.scenes.write import VERSION, prepare
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.documents import MadeDocuments
from vlmtrain.data.sources.jsonl import JsonLines
from vlmtrain.data.sources.parquet import Parquet
from vlmtrain.data.sources.webdataset import WebDataset


class Scenes:
    """Rendered scenes with captions, questions and the truth about them.

    `test` follows the rules of training; `compositional` has colour-shape pairs and relations that are new.  With
    `twins` every training scene is followed by one that differs in a single fact, and both come in the same batch:
    what a contrastive model must look closely to tell apart.  Data of another version of this world stay beside it.
    """

    def __init__(
        self,
        folder: str,
        format: Literal["webdataset", "jsonl", "parquet"] = "webdataset",
        seed: int = 0,
        num_train: int = 4000,
        num_test: int = 400,
        num_compositional: int = 400,
        num_processes: int = 2,
        twins: bool = False,
    ) -> None:
        training = "twins" if twins else "train"
        self.together = 2 if twins else 1
        counts = {training: num_train, "test": num_test, "compositional": num_compositional}
        present = {split: count for split, count in counts.items() if count > 0}
        place = prepare(Path(folder).expanduser() / f"version-{VERSION}", format, seed, present, num_processes)
        self.train: Source = _open(place, format, training)
        self.evaluation: dict[str, Source] = {
            split: _open(place, format, split) for split in present if split != training
        }


class SceneQuestions(Scenes):
    """The same scenes to ask about: `num_questions` of every held-out record, and in training all that it has.

    Scenes have six to eight questions of seven kinds, in an order of chance, so that kinds come evenly.
    """

    def __init__(
        self,
        folder: str,
        format: Literal["webdataset", "jsonl", "parquet"] = "webdataset",
        seed: int = 0,
        num_train: int = 4000,
        num_test: int = 400,
        num_compositional: int = 400,
        num_processes: int = 2,
        num_questions: int = 2,
    ) -> None:
        super().__init__(folder, format, seed, num_train, num_test, num_compositional, num_processes)
        self.evaluation = {split: OneByOne(source, num_questions) for split, source in self.evaluation.items()}


class SceneTexts:
    """Documents about scenes that are never drawn, made as they are asked for: nothing is written to disk."""

    together = 1
    make = staticmethod(retold)

    def __init__(self, seed: int = 0, num_train: int = 100_000, num_held_out: int = 500) -> None:
        self.train: Source = MadeDocuments(self.make, seed, num_train)
        self.evaluation: dict[str, Source] = {"held_out": MadeDocuments(self.make, seed, num_held_out, first=num_train)}


class SceneInstructions(SceneTexts):
    """As SceneTexts; half of the documents answer questions about their scene."""

    make = staticmethod(instructed)


def _open(folder: Path, format: str, split: str) -> Source:
    if format == "webdataset":
        return WebDataset(str(folder / f"{split}-*.tar"))
    if format == "jsonl":
        return JsonLines(str(folder / split))
    return Parquet(str(folder / f"{split}-*.parquet"), json_columns=["scene"])
