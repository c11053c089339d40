"""The embedded scenes, asked for the places of their things."""

import hashlib
from dataclasses import astuple, replace
from typing import Literal

from vlmtrain.data.asking import OneByOne
from vlmtrain.data.record import Record
from vlmtrain.data.scenes.places import ask_for_places, box_of
from vlmtrain.data.scenes.things import Scene
from vlmtrain.data.scenes_data import Scenes
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.view import View
from vlmtrain.layouts.boxes import write_box


class SceneBoxes(Scenes):
    """The same scenes to point into: a question for each of their things, answered by its box in places.

    `extra["questions"]` are as those of SceneQuestions (`text`, `answer`), with `box`: left, top, right and bottom in
    shares of the image.  Held-out records are asked `num_questions` of theirs, one by one.

    Args:
        num_places: how finely an answer tells a side (`vlmtrain.layouts.boxes.write_box`).
    """

    def __init__(
        self,
        folder: str,
        format: Literal["webdataset", "jsonl", "parquet"] = "webdataset",
        seed: int = 0,
        num_train: int = 4000,
        num_test: int = 400,
        num_compositional: int = 400,
        num_places: int = 32,
        num_questions: int = 1,
    ) -> None:
        super().__init__(folder, format, seed, num_train, num_test, num_compositional)
        self.train: Source = _Places(self.train, num_places)
        self.evaluation: dict[str, Source] = {
            split: OneByOne(_Places(source, num_places), num_questions) for split, source in self.evaluation.items()
        }


class _Places(View):
    """The records of scenes with questions for places in place of their own."""

    def __init__(self, source: Source, num_places: int) -> None:
        super().__init__(source)
        self.num_places = num_places

    @property
    def name(self) -> str:
        return f"{self.source.name} asked for places"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.num_places} places {self.source.fingerprint}".encode()).hexdigest()

    def change(self, index: int, record: Record) -> Record:
        asked = [(text, box_of(thing)) for text, thing in ask_for_places(Scene.from_json(record.extra["scene"]))]
        questions = [
            {"text": text, "answer": write_box(box, self.num_places), "box": list(astuple(box))} for text, box in asked
        ]
        return replace(record, extra={**record.extra, "questions": questions})
