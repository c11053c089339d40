"""Judges whether a caption is true of a scene, and says in a few words what is wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from vlmtrain.data.scenes.parsing import Description, ParseError, parse
from vlmtrain.data.scenes.things import Scene, Thing, holds
from vlmtrain.data.scenes.words import RELATION_PHRASES


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a caption is right, and how much of what it says is."""

    correct: bool
    reason: str
    right_things: int = 0
    named_things: int = 0
    true_relations: int = 0
    spoken_relations: int = 0


def judge(text: str, scene: Scene) -> Verdict:
    """Right if it names every thing once with its own attributes and says true relations, at least one of several."""
    try:
        description = parse(text)
    except ParseError as error:
        return Verdict(False, f"is no caption: {error}")
    matched, true_relations = _best_match(description, scene)
    right = sum(thing is not None for thing in matched)
    reason = _fault(description, scene, matched, true_relations)
    return Verdict(
        correct=not reason,
        reason=reason or "right",
        right_things=right,
        named_things=len(description.things),
        true_relations=true_relations,
        spoken_relations=len(description.relations),
    )


def _best_match(description: Description, scene: Scene) -> tuple[Sequence[Thing | None], int]:
    """For each named thing the drawn one that it fits, so that most things and then most relations come right."""
    named = description.things
    spare = max(0, len(named) - len(scene.things))
    best: tuple[Sequence[Thing | None], int] = ([None] * len(named), 0)
    best_score = (-1, -1)
    for chosen in permutations((*scene.things, *[None] * spare), len(named)):
        matched = [
            thing if thing is not None and thing.attributes == name.attributes else None
            for thing, name in zip(chosen, named, strict=True)
        ]
        true_relations = sum(_is_true(matched, *relation) for relation in description.relations)
        score = (sum(thing is not None for thing in matched), true_relations)
        if score > best_score:
            best, best_score = (matched, true_relations), score
    return best


def _is_true(matched: Sequence[Thing | None], first: int, relation: str, second: int) -> bool:
    one, other = matched[first], matched[second]
    return one is not None and other is not None and holds(one, relation, other)


def _fault(description: Description, scene: Scene, matched: Sequence[Thing | None], true_relations: int) -> str:
    """The first fault of the caption, or nothing."""
    named, drawn = len(description.things), len(scene.things)
    for name, thing in zip(description.things, matched, strict=True):
        if thing is None:
            attributes = [thing.attributes for thing in scene.things]
            twice = "names too many of" if name.attributes in attributes else "the picture has no"
            return f"{twice} {name}"
    if named != drawn:
        return f"names {named} of the {drawn} things"
    if drawn > 1 and not description.relations:
        return "names no relation"
    if true_relations < len(description.relations):
        for first, relation, second in description.relations:
            if not _is_true(matched, first, relation, second):
                where = RELATION_PHRASES[relation][0]
                return f"the {description.things[first]} is not {where} the {description.things[second]}"
    return ""
