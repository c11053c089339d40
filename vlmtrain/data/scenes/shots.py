"""Few-shot tasks: documents with a rule of their own, which nobody can know who has not seen its examples."""

from dataclasses import dataclass
from typing import Literal

from vlmtrain.data.scenes.documents import scene_with
from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.formats import Example
from vlmtrain.data.scenes.records import encode_jpeg
from vlmtrain.data.scenes.things import Scene

VERSION = 1
"""Raised whenever the same seed would give other documents."""

Task = Literal["attributes", "names"]
TASKS: tuple[Task, ...] = ("attributes", "names")
ATTRIBUTES = ("colour", "shape", "size", "texture")
MADE_UP = ("dax", "wug", "blicket", "toma", "zup", "fep", "modi", "tulver", "gazzer", "kiki", "bouba", "riff")
_TRIES = 200


@dataclass(frozen=True, slots=True)
class MakeShots:
    """`num_shots` pictures of one thing, each with its word, and a last one to be named.

    In a document of "attributes" all words name the same attribute, colour in some, shape, size or texture in others:
    who sees the last picture alone guesses one of four.  In one of "names" two shapes have made-up names, which are
    others in the next document; both are shown, as often as the number of shots allows.
    """

    num_shots: int = 4
    task: Task = "attributes"

    def __call__(self, seed: int, split: str, index: int, image_size: int) -> Example:
        draws = Draws("shots", self.task, seed, split, index)
        if self.task == "attributes":
            attribute = draws.pick(ATTRIBUTES)
            scenes = [self._scene(seed, split, index, place) for place in range(self.num_shots + 1)]
            answers, kind, asking = [str(getattr(scene.things[0], attribute)) for scene in scenes], attribute, ""
        else:
            scenes, answers = self._named(seed, split, index, draws)
            kind, asking = "name", "this is a"
        names = [f"images/{index:08d}-{place:02d}.jpg" for place in range(len(scenes))]
        line = {
            "id": f"{index:08d}",
            "images": [name for image in names for name in (image, None)],
            "texts": [text for answer in answers for text in (None, f"{asking} {answer}")],
            "captions": [answers[-1]],
            "questions": [{"text": asking, "answer": answers[-1], "kind": kind}],
            "scenes": [scene.to_json() for scene in scenes],
        }
        return Example(line, {name: encode_jpeg(each, image_size) for name, each in zip(names, scenes, strict=True)})

    def _scene(self, seed: int, split: str, index: int, *place: int) -> Scene:
        return scene_with(1, seed, split, "shots", index, *place)

    def _named(self, seed: int, split: str, index: int, draws: Draws) -> tuple[list[Scene], list[str]]:
        """Of two shapes each at least every second shot, in an order of chance; the last is either."""
        shapes: list[str] = []
        found: dict[str, list[Scene]] = {}
        for attempt in range(_TRIES):
            scene = self._scene(seed, split, index, 0, attempt)
            shape = scene.things[0].shape
            if len(shapes) < 2 and shape not in shapes:
                shapes.append(shape)
            found.setdefault(shape, []).append(scene)
            if len(shapes) == 2 and all(len(found[each]) > (self.num_shots + 1) // 2 for each in shapes):
                break
        chosen = [shapes[place % 2] for place in draws.order(self.num_shots)] + [draws.pick(shapes)]
        names = dict(zip(shapes, (MADE_UP[place] for place in draws.order(len(MADE_UP))), strict=False))
        return [found[shape].pop() for shape in chosen], [names[shape] for shape in chosen]
