"""The embedded world to be classified: which colour and shape has the one thing of the picture?"""

from vlmtrain.data.scenes.single import MakeSingle, name_of
from vlmtrain.data.scenes.things import COLOURS, HELD_OUT_PAIRS, SHAPES
from vlmtrain.data.scenes.world import TRAIN_SORTS
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.made import MadeRecords


class SceneClasses:
    """Single things of 49 classes, every colour with every shape, in even numbers; drawn as they are asked for.

    `test` has the 42 pairs that training shows, `compositional` the seven that it never shows; `train` has `num_shots`
    examples of each of the 49.  None of the pictures is in the data of `Scenes`.
    """

    together = 1
    templates = ("there is a {}", "here is a {}", "a picture of a {}", "the picture shows a {}")

    def __init__(self, seed: int = 0, num_test: int = 210, num_compositional: int = 140, num_shots: int = 4) -> None:
        every = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
        self.classes = [name_of(sort) for sort in every]
        self.train: Source = _singles(every, "train", seed, num_shots * len(every))
        self.evaluation: dict[str, Source] = {
            "test": _singles(TRAIN_SORTS, "test", seed, num_test),
            "compositional": _singles(tuple(sorted(HELD_OUT_PAIRS)), "compositional", seed, num_compositional),
        }


def _singles(sorts: tuple[tuple[str, str], ...], split: str, seed: int, count: int) -> Source:
    return MadeRecords(MakeSingle(sorts, split), f"single things, {split}", seed, count)
