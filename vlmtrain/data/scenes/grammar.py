"""Captions of scenes: many wordings of the same facts, all of which parse back and can be judged."""

from collections.abc import Sequence

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.judging import Verdict, judge
from vlmtrain.data.scenes.parsing import Description, Named, ParseError, parse
from vlmtrain.data.scenes.things import COLOURS, SHAPES, SIZES, TEXTURES, Scene, Thing, main_relation
from vlmtrain.data.scenes.words import (
    OPENINGS,
    RELATION_PHRASES,
    SIDE_PHRASES,
    SIZE_WORDS,
    TEXTURE_AFTER,
    TEXTURE_BEFORE,
    vocabulary,
)

__all__ = [
    "Description",
    "Named",
    "ParseError",
    "Verdict",
    "caption",
    "in_order_of_telling",
    "judge",
    "parse",
    "phrase",
    "vocabulary",
]

MOST_THINGS = 3


def caption(scene: Scene, key: int, words_key: int | None = None) -> str:
    """One wording of the scene, chosen by the key: all attributes of all things, and a relation less than things.

    The most striking thing comes first, as people tell of pictures: the large before the small, equals by colour.
    Captions of one key and different `words_key` say the same in the same form, with other words for it.
    """
    if not 1 <= len(scene.things) <= MOST_THINGS:
        raise ValueError(f"a caption tells of 1 to {MOST_THINGS} things, not {len(scene.things)}: caption a part")
    draws = Draws("caption", key, scene.seed)
    things = in_order_of_telling(scene)
    opening = draws.pick(("", *OPENINGS))
    words = draws if words_key is None else Draws("words", words_key, scene.seed)
    if len(things) == 1:
        return _join(opening, phrase(things[0], words))
    if len(things) == 2:
        form = draws.pick((_side_by_side, _side_by_side, _with_at_sides, _fronted if not opening else _side_by_side))
    else:
        form = draws.pick((_side_by_side, _in_a_chain, _with_at_sides))
    return form(opening, things, words)


def in_order_of_telling(scene: Scene) -> list[Thing]:
    """The things as captions name them, the most striking first."""
    return sorted(scene.things, key=_striking)


def _striking(thing: Thing) -> tuple[int, ...]:
    """Sorts before another thing what is named before it; no two things of a scene are equal in it."""
    return (
        -SIZES.index(thing.size),
        COLOURS.index(thing.colour),
        SHAPES.index(thing.shape),
        TEXTURES.index(thing.texture),
    )


def phrase(thing: Thing, draws: Draws, texture_last: bool = True) -> str:
    """A noun phrase with all four attributes; texture_last allows the wording with stripes or dots at its end."""
    size = draws.pick(SIZE_WORDS[thing.size])
    endings = TEXTURE_AFTER.get(thing.texture, ())
    if endings and texture_last and draws.chance(0.4):
        return _join("a", size, thing.colour, thing.shape, draws.pick(endings))
    texture = draws.pick(TEXTURE_BEFORE[thing.texture])
    if draws.chance(0.5):
        return _join("a", size, texture, thing.colour, thing.shape)
    return _join("a", size, thing.colour, texture, thing.shape)


def _relation(first: Thing, second: Thing, draws: Draws) -> str:
    return draws.pick(RELATION_PHRASES[main_relation(first, second)])


def _side(thing: Thing, head: Thing, draws: Draws) -> str:
    return draws.pick(SIDE_PHRASES[main_relation(thing, head)])


def _side_by_side(opening: str, things: Sequence[Thing], draws: Draws) -> str:
    """A [is] left of B [and above C]: each relation is the first thing's."""
    head = things[0]
    verb = "is" if not opening and draws.chance(0.5) else ""
    words = [opening, phrase(head, draws), verb]
    for place, thing in enumerate(things[1:]):
        words += ["and" if place else "", _relation(head, thing, draws), phrase(thing, draws)]
    return _join(*words)


def _in_a_chain(opening: str, things: Sequence[Thing], draws: Draws) -> str:
    """A left of B, which is above C: the second relation is the middle thing's."""
    first, second, third = things
    words = [opening, phrase(first, draws), _relation(first, second, draws), phrase(second, draws)]
    return _join(*words) + _join(", which is", _relation(second, third, draws), phrase(third, draws))


def _with_at_sides(opening: str, things: Sequence[Thing], draws: Draws) -> str:
    """A with B to its left [and C below it]: each relation is the first thing's, said from the other side."""
    head = things[0]
    words = [opening, phrase(head, draws, texture_last=False)]
    for place, thing in enumerate(things[1:]):
        words += ["and" if place else "with", phrase(thing, draws), _side(thing, head, draws)]
    return _join(*words)


def _fronted(opening: str, things: Sequence[Thing], draws: Draws) -> str:
    """Left of A [there] is B: the relation is the second thing's."""
    first, second = things
    verb = draws.pick(("is", "there is"))
    return _join(opening, _relation(second, first, draws), phrase(first, draws), verb, phrase(second, draws))


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)
