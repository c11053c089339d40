from collections import Counter
from dataclasses import replace

import pytest

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.grammar import parse
from vlmtrain.data.scenes.parsing import ParseError
from vlmtrain.data.scenes.questions import KINDS, Question, questions
from vlmtrain.data.scenes.refer import refer
from vlmtrain.data.scenes.text import document
from vlmtrain.data.scenes.things import (
    COLOURS,
    HELD_OUT_PAIRS,
    SHAPES,
    SIZES,
    TEXTURES,
    Background,
    Scene,
    Thing,
    held_out_pairs,
    holds,
)
from vlmtrain.data.scenes.words import RELATION_OF, SIZE_OF
from vlmtrain.data.scenes.world import make_scene

GROUND = Background("gradient", 0.6, 0.05, 0.9, 0.05, 0.0)
STAR = Thing("star", "red", "small", "plain", 0.2, 0.5, 0.12)
CHOICES = {"colour": COLOURS, "shape": SHAPES, "size": SIZES, "texture": TEXTURES}


def fitting(phrase: str, scene: Scene) -> list[Thing]:
    """The things that a phrase such as "the little red star" fits, read word by word."""
    words = phrase.removeprefix("the ").split()
    facts = {SIZE_OF.get(word, word) for word in words} - {"thing"}
    return [thing for thing in scene.things if facts <= set(thing.attributes)]


def relation_in(text: str) -> tuple[str, str, str]:
    """What stands before the relation's wording, the relation, and what stands after it."""
    for wording in sorted(RELATION_OF, key=len, reverse=True):
        before, found, after = text.partition(f" {wording} ")
        if found:
            return before, RELATION_OF[wording], after
    raise AssertionError(f"{text!r} speaks of no relation")


def check(asked: Question, scene: Scene) -> None:
    """Works the answer out anew from the words of the question."""
    text = asked.text.removesuffix("?")
    if asked.kind == "count":
        assert asked.answer == ("no", "one", "two", "three")[len(scene.things)]
    elif asked.kind in CHOICES:
        assert asked.answer in CHOICES[asked.kind]
        phrase = next(
            text[text.index("the ") :].removesuffix(end)
            for end in (" have", " plain, striped or dotted", "")
            if text.endswith(end)
        )
        [thing] = fitting(phrase, scene)
        assert getattr(thing, asked.kind) == asked.answer
    elif asked.kind == "relation":
        _, relation, phrase = relation_in(text)
        [anchor] = fitting(phrase, scene)
        [answer] = [other for other in scene.things if other is not anchor and holds(other, relation, anchor)]
        assert f"{answer.colour} {answer.shape}" == asked.answer
    elif text.startswith("is there"):
        colour, shape = text.split()[-2:]
        present = (colour, shape) in {(thing.colour, thing.shape) for thing in scene.things}
        assert asked.answer == ("yes" if present else "no")
        assert present or (colour, shape) not in HELD_OUT_PAIRS
    else:
        before, relation, after = relation_in(text.removeprefix("is "))
        [first], [second] = fitting(before, scene), fitting(after, scene)
        assert asked.answer == ("yes" if holds(first, relation, second) else "no")


@pytest.mark.parametrize("split", ["train", "test", "compositional"])
def test_every_answer_follows_from_the_scene(split: str) -> None:
    for index in range(300):
        scene = make_scene(0, split, index)
        asked = questions(scene, index)
        assert asked == questions(scene, index)
        for each in asked:
            check(each, scene)


def test_all_kinds_occur_and_yes_is_as_frequent_as_no() -> None:
    asked = [each for index in range(800) for each in questions(make_scene(0, "train", index), 0)]
    assert {each.kind for each in asked} == set(KINDS)
    answers = Counter(each.answer for each in asked if each.kind == "yes_no")
    assert answers["yes"] / answers.total() == pytest.approx(0.5, abs=0.05)


def test_nothing_ambiguous_is_asked() -> None:
    scene = Scene((STAR, replace(STAR, x=0.8, colour="blue")), GROUND, 0)
    for key in range(50):
        asked = {each.kind: each for each in questions(scene, key)}
        assert "colour" not in asked
        assert asked["shape"].answer == "star"
    assert refer(scene, STAR, "colour", Draws(0)) is None


def test_documents_repeat_one_scene_that_keeps_the_training_rules() -> None:
    lines_seen = captions_seen = 0
    for index in range(500):
        scene = make_scene(0, "text", index)
        text = document(0, index)
        assert text == document(0, index)
        assert not held_out_pairs(scene)
        lines = text.split("\n")
        assert 2 <= len(lines) <= 5
        lines_seen += len(lines)
        for line in lines:
            try:
                claims = parse(line)
            except ParseError:
                continue
            captions_seen += 1
            named = sorted(thing.attributes for thing in claims.things)
            assert named == sorted(thing.attributes for thing in scene.things)
    assert captions_seen / lines_seen == pytest.approx(0.5, abs=0.08)
