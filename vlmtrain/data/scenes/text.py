"""Text without pictures: documents that say the same facts several times over, to pretrain a language model on."""

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.grammar import caption
from vlmtrain.data.scenes.questions import COUNT_WORDS, questions
from vlmtrain.data.scenes.refer import refer
from vlmtrain.data.scenes.things import Scene, main_relation
from vlmtrain.data.scenes.words import RELATION_PHRASES
from vlmtrain.data.scenes.world import make_scene

_FEWEST_LINES, _MOST_LINES = 2, 5
SEPARATOR = "</s>"  # what OPT puts before every text
_ATTRIBUTES = ("colour", "shape", "size", "texture")


def document(seed: int, index: int) -> str:
    """Two to five lines about one scene that is never drawn: captions, single facts, questions with answers.

    Every later line repeats or follows from earlier ones, so that a model gains by looking back.
    """
    scene = make_scene(seed, "text", index)
    draws = Draws("document", seed, index)
    count = _FEWEST_LINES + draws.below(_MOST_LINES - _FEWEST_LINES + 1)
    captions = (count + draws.below(2)) // 2
    lines = [caption(scene, key) for key in range(captions)]
    others = count - captions
    asked = questions(scene, index)
    for place in range(others):
        if draws.chance(0.5) and place < len(asked):
            lines.append(f"{asked[place].text} {asked[place].answer}")
        else:
            lines.append(_fact(scene, draws))
    return "\n".join(lines[place] for place in draws.order(len(lines)))


def retold(seed: int, index: int) -> str:
    """One scene told twice: what was said before SEPARATOR is said again after it, in other words, and sometimes more.

    A language model that reads it learns to look back beyond the mark that begins a text, which is where a soft visual
    prompt stands.  Every second telling again keeps the form of what was told before: were each in a form of its own,
    "left" and "right" of the two tellings would agree hardly oftener than chance has it, and a model that learns by
    small steps finds no first one towards copying them.  One document in five is told in one go.
    """
    draws = Draws("retold", seed, index)
    if draws.chance(0.2):
        return document(seed, index)
    scene = make_scene(seed, "text", index)
    first, other, words = (draws.below(2**20) for _ in range(3))
    before = [caption(scene, first)]
    if len(scene.things) > 1 and draws.chance(0.3):  # in another form, or with the relation that one leaves out
        before.insert(draws.below(2), caption(scene, other))
    after = [caption(scene, first, words) if draws.chance(0.5) else caption(scene, draws.below(2**20))]
    if draws.chance(0.3):
        after.append(_fact(scene, draws))
    return "\n".join(before) + SEPARATOR + "\n".join(after)


def _fact(scene: Scene, draws: Draws) -> str:
    """One true sentence of one attribute, one relation or the number of things."""
    thing = draws.pick(scene.things)
    others = [other for other in scene.things if other is not thing]
    what = draws.pick(("count", "relation", *_ATTRIBUTES))
    if what == "relation" and others:
        other = draws.pick(others)
        one, two = refer(scene, thing, "", draws), refer(scene, other, "", draws)
        if one is not None and two is not None:
            return f"{one} is {draws.pick(RELATION_PHRASES[main_relation(thing, other)])} {two}"
    phrase = refer(scene, thing, what, draws) if what in _ATTRIBUTES else None
    if phrase is None:
        return _count(scene)
    value = getattr(thing, what)
    return f"{phrase} is a {value}" if what == "shape" else f"{phrase} is {value}"


def _count(scene: Scene) -> str:
    number = COUNT_WORDS[len(scene.things)]
    return f"there is {number} thing" if len(scene.things) == 1 else f"there are {number} things"
