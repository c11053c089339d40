"""Names one thing of a scene in as few words as single it out."""

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.things import Scene, Thing
from vlmtrain.data.scenes.words import SIZE_WORDS

_CHOICES = (
    ("shape",),
    ("colour", "shape"),
    ("size", "shape"),
    ("texture", "shape"),
    ("colour",),
    ("size", "colour"),
    ("size", "texture", "shape"),
    ("texture", "colour"),
    ("size", "colour", "shape"),
    ("size",),
    ("texture",),
    ("size", "texture"),
    ("size", "texture", "colour"),
    ("texture", "colour", "shape"),
    ("size", "texture", "colour", "shape"),
)


def refer(scene: Scene, thing: Thing, hidden: str, draws: Draws) -> str | None:
    """A phrase such as "the large star" that fits this thing alone and does not tell the hidden attribute.

    None where no such phrase exists; hidden may be empty.
    """
    fitting = [
        names
        for names in _CHOICES
        if hidden not in names and sum(_alike(thing, other, names) for other in scene.things) == 1
    ]
    if not fitting:
        return None
    names = draws.pick(fitting[:3])
    words = ["the"]
    if "size" in names:
        words.append(draws.pick(SIZE_WORDS[thing.size]))
    words += [getattr(thing, name) for name in ("texture", "colour") if name in names]
    return " ".join([*words, thing.shape if "shape" in names else "thing"])


def _alike(first: Thing, second: Thing, names: tuple[str, ...]) -> bool:
    return all(getattr(first, name) == getattr(second, name) for name in names)
