"""Text without pictures: documents that say the same facts several times over, to pretrain a language model on."""

from itertools import combinations

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.grammar import MOST_THINGS, caption, in_order_of_telling
from vlmtrain.data.scenes.questions import COUNT_WORDS, questions
from vlmtrain.data.scenes.refer import refer
from vlmtrain.data.scenes.things import Scene, main_relation
from vlmtrain.data.scenes.words import RELATION_PHRASES
from vlmtrain.data.scenes.world import make_scene

_FEWEST_LINES, _MOST_LINES = 2, 5
_MOST_QUESTIONS = 4
NOTHING = "no"  # in notes, at the place of a thing or a relation that a scene has not
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


def notes(scene: Scene) -> str:
    """The scene as a row of a table, a blank before every word.

    Of each of three things size, colour, texture and shape, the things in the order of captions; then how the first
    stands to the second, the first to the third and the second to the third.  NOTHING stands for what there is not.
    """
    things = in_order_of_telling(scene)
    words = [word for thing in things for word in thing.attributes]
    words += [NOTHING] * (len(_ATTRIBUTES) * (MOST_THINGS - len(things)))
    for one, other in combinations(range(MOST_THINGS), 2):
        words.append(main_relation(things[one], things[other]) if other < len(things) else NOTHING)
    return "".join(f" {word}" for word in words)


def retold(seed: int, index: int) -> str:
    """One scene told twice: what was said before SEPARATOR is said again after it, in other words, and sometimes more.

    A language model that reads it learns to look back beyond the mark that begins a text, which is where a soft visual
    prompt stands.  Of ten documents five tell notes first, each fact at a place of its own, which a few visual tokens
    can stand in for one by one; three a caption; two are told in one go.

    Of the captions told again every second keeps the form of what was told before: were each in a form of its own,
    "left" and "right" of the two tellings would agree hardly oftener than chance has it, and a model that learns by
    small steps finds no first one towards copying them.
    """
    draws = Draws("retold", seed, index)
    if draws.chance(0.2):
        return document(seed, index)
    scene = make_scene(seed, "text", index)
    first, other, words = (draws.below(2**20) for _ in range(3))
    if draws.chance(0.6):
        before, after = [notes(scene)], [caption(scene, first)]
    else:
        before = [caption(scene, first)]
        if len(scene.things) > 1 and draws.chance(0.3):  # in another form, or with the relation that one leaves out
            before.insert(draws.below(2), caption(scene, other))
        after = [caption(scene, first, words) if draws.chance(0.5) else caption(scene, draws.below(2**20))]
    if draws.chance(0.3):
        after.append(_fact(scene, draws))
    return "\n".join(before) + SEPARATOR + "\n".join(after)


def instructed(seed: int, index: int) -> str:
    """Every second time `retold`; else a scene in notes or a caption, and behind SEPARATOR questions with answers.

    What a language model learns from it is to answer as well as to tell, as instruction tuning does for the published
    ones before they are given images.
    """
    draws = Draws("instructed", seed, index)
    if draws.chance(0.5):
        return retold(seed, index)
    scene = make_scene(seed, "text", index)
    asked = questions(scene, draws.below(2**20))[: 1 + draws.below(_MOST_QUESTIONS)]
    before = _told(scene, draws)
    return before + SEPARATOR + "\n".join(f"{question.text} {question.answer}" for question in asked)


def told(seed: int, index: int) -> str:
    """One scene in notes, every fifth one in a caption."""
    return _told(make_scene(seed, "text", index), Draws("told", seed, index))


def _told(scene: Scene, draws: Draws) -> str:
    return notes(scene) if draws.chance(0.8) else caption(scene, draws.below(2**20))


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
