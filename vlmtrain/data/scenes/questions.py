"""Questions about a scene with short answers; every question has exactly one right answer."""

from dataclasses import dataclass

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.refer import refer
from vlmtrain.data.scenes.things import (
    HELD_OUT_RELATIONS,
    INVERSE,
    RELATIONS,
    Scene,
    Thing,
    held_out_relations,
    holds,
    main_relation,
)
from vlmtrain.data.scenes.words import RELATION_PHRASES
from vlmtrain.data.scenes.world import TRAIN_SORTS

KINDS = ("count", "colour", "shape", "size", "texture", "relation", "yes_no")
COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six")

_ASKING = {
    "colour": ("what colour is {}?", "which colour does {} have?"),
    "shape": ("what shape is {}?", "which shape does {} have?"),
    "size": ("how large is {}?", "what size is {}?"),
    "texture": ("what texture does {} have?", "is {} plain, striped or dotted?"),
}
_COUNTING = ("how many things are there?", "how many things do you see?")


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene, its answer, and what it asks for."""

    text: str
    answer: str
    kind: str

    def to_json(self) -> dict[str, str]:
        return {"text": self.text, "answer": self.answer, "kind": self.kind}


def questions(scene: Scene, key: int) -> list[Question]:
    """Questions of all kinds that the scene allows, worded and chosen by the key; yes and no are equally likely."""
    draws = Draws("questions", key, scene.seed)
    asked = [Question(draws.pick(_COUNTING), COUNT_WORDS[len(scene.things)], "count")]
    asked += [found for kind in _ASKING if (found := _ask_attribute(scene, kind, draws)) is not None]
    asked += [found for found in (_ask_what_stands(scene, draws), _ask_presence(scene, draws)) if found is not None]
    relation = _ask_whether_so(scene, draws)
    if relation is not None:
        asked.append(relation)
    return [asked[place] for place in draws.order(len(asked))]


def _ask_attribute(scene: Scene, kind: str, draws: Draws) -> Question | None:
    for place in draws.order(len(scene.things)):
        thing = scene.things[place]
        phrase = refer(scene, thing, kind, draws)
        if phrase is not None:
            return Question(draws.pick(_ASKING[kind]).format(phrase), getattr(thing, kind), kind)
    return None


def _ask_what_stands(scene: Scene, draws: Draws) -> Question | None:
    """What stands, say, left of a thing, where one thing alone does and does so plainly."""
    found = []
    for anchor in scene.things:
        for relation in RELATIONS:
            standing = [other for other in scene.things if other is not anchor and holds(other, relation, anchor)]
            if len(standing) == 1 and main_relation(standing[0], anchor) == relation:
                found.append((anchor, relation, standing[0]))
    if not found:
        return None
    anchor, relation, answer = draws.pick(found)
    phrase = refer(scene, anchor, "", draws)
    if phrase is None:
        return None
    text = f"what is {draws.pick(RELATION_PHRASES[relation])} {phrase}?"
    return Question(text, f"{answer.colour} {answer.shape}", "relation")


def _ask_presence(scene: Scene, draws: Draws) -> Question:
    """Whether a colour and shape are there; half of the absent ones mix the colour and shape of two drawn things.

    An absent pair is never a held-out one, or training would teach that those never occur.
    """
    present = [(thing.colour, thing.shape) for thing in scene.things]
    if draws.chance(0.5):
        colour, shape = draws.pick(present)
        return Question(f"is there {_article(colour)} {colour} {shape}?", "yes", "yes_no")
    absent = [sort for sort in TRAIN_SORTS if sort not in present]
    colours, shapes = {colour for colour, _ in present}, {shape for _, shape in present}
    near = [sort for sort in absent if sort[0] in colours and sort[1] in shapes]
    near = near or [sort for sort in absent if sort[0] in colours or sort[1] in shapes]
    colour, shape = draws.pick(near if draws.chance(0.5) else absent)
    return Question(f"is there {_article(colour)} {colour} {shape}?", "no", "yes_no")


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _ask_whether_so(scene: Scene, draws: Draws) -> Question | None:
    """Whether a relation is so; only of pairs of which both the yes and the no question keep to what training shows."""
    pairs = [
        (first, second)
        for first in scene.things
        for second in scene.things
        if first is not second and _may_be_denied(scene, first, second)
    ]
    if not pairs:
        return None
    first, second = draws.pick(pairs)
    one, other = refer(scene, first, "", draws), refer(scene, second, "", draws)
    if one is None or other is None:
        return None
    relation, answer = main_relation(first, second), "yes"
    if draws.chance(0.5):
        relation, answer = INVERSE[relation], "no"
    return Question(f"is {one} {draws.pick(RELATION_PHRASES[relation])} {other}?", answer, "yes_no")


def _may_be_denied(scene: Scene, first: Thing, second: Thing) -> bool:
    denied = (first.shape, INVERSE[main_relation(first, second)], second.shape)
    return bool(held_out_relations(scene)) or denied not in HELD_OUT_RELATIONS
