"""Pictures of one thing whose colour and shape are given, everything else of it left to chance."""

from dataclasses import dataclass, replace

from vlmtrain.data.record import Record
from vlmtrain.data.scenes.documents import scene_with
from vlmtrain.data.scenes.records import encode_jpeg, paraphrases

Sort = tuple[str, str]
"""Colour and shape."""


def name_of(sort: Sort) -> str:
    """As in captions."""
    return " ".join(sort)


@dataclass(frozen=True, slots=True)
class MakeSingle:
    """One thing of `sorts[index % len(sorts)]`, so that all come equally often; `use` keys everything else.

    The record's `extra["class"]` names its sort.
    """

    sorts: tuple[Sort, ...]
    use: str
    image_size: int = 128

    def __call__(self, seed: int, index: int) -> Record:
        scene = scene_with(1, seed, "test", "single", self.use, index)
        colour, shape = self.sorts[index % len(self.sorts)]
        scene = replace(scene, things=(replace(scene.things[0], colour=colour, shape=shape),))
        extra = {"class": name_of((colour, shape)), "scene": scene.to_json()}
        return Record(f"{index:08d}", [encode_jpeg(scene, self.image_size)], list(paraphrases(scene)), extra)
