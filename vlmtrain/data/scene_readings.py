"""The embedded world in words, with questions: nothing is drawn and nothing written to disk."""

from dataclasses import replace

from vlmtrain.data.asking import OneByOne
from vlmtrain.data.record import Record
from vlmtrain.data.scenes.questions import questions
from vlmtrain.data.scenes.text import told
from vlmtrain.data.scenes.world import make_scene
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.documents import MadeDocuments


class SceneReadings:
    """Scenes told in notes or a caption, each with six to eight questions; `num_questions` of every held-out one."""

    together = 1

    def __init__(
        self, seed: int = 0, num_train: int = 100_000, num_held_out: int = 250, num_questions: int = 2
    ) -> None:
        self.train: Source = _Readings(told, seed, num_train)
        held_out = _Readings(told, seed, num_held_out, first=num_train)
        self.evaluation: dict[str, Source] = {"held_out": OneByOne(held_out, num_questions)}


class _Readings(MadeDocuments):
    """Documents with the questions of the scene that they tell of."""

    def read(self, index: int) -> Record:
        record = super().read(index)
        scene = make_scene(self.seed, "text", self.first + index)
        asked = [question.to_json() for question in questions(scene, self.first + index)]
        return replace(record, extra={"questions": asked})
