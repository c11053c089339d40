from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.data.scenes.grammar import ParseError, caption, judge, parse, vocabulary
from vlmtrain.data.scenes.things import COLOURS, Background, Scene, Thing, holds
from vlmtrain.data.scenes.world import SPLITS, make_scene, make_twin

GROUND = Background("gradient", 0.6, 0.05, 0.9, 0.05, 0.0)
STAR = Thing("star", "red", "small", "plain", 0.2, 0.5, 0.12)
RING = Thing("ring", "blue", "large", "striped", 0.7, 0.55, 0.19)
HEART = Thing("heart", "pink", "small", "dotted", 0.3, 0.15, 0.12)
TWO = Scene((STAR, RING), GROUND, 0)
THREE = Scene((STAR, RING, HEART), GROUND, 0)
S, R, H = "a small red plain star", "a large blue striped ring", "a small pink heart with dots"


@settings(max_examples=300, deadline=None)
@given(split=st.sampled_from(SPLITS), index=st.integers(0, 10**6), key=st.integers(0, 10**6))
def test_every_wording_parses_back_to_the_scene(split: str, index: int, key: int) -> None:
    scene = make_scene(0, split, index)
    text = caption(scene, key)
    claims = parse(text)
    by_attributes = {thing.attributes: thing for thing in scene.things}
    assert sorted(named.attributes for named in claims.things) == sorted(by_attributes)
    assert len(claims.relations) == len(scene.things) - 1
    drawn = [by_attributes[named.attributes] for named in claims.things]
    assert all(holds(drawn[first], relation, drawn[second]) for first, relation, second in claims.relations)
    verdict = judge(text, scene)
    assert verdict.correct and verdict.right_things == verdict.named_things == len(scene.things)
    assert verdict.true_relations == verdict.spoken_relations == len(scene.things) - 1
    words = text.replace(",", " ,").split()
    assert text == text.lower() and len(words) <= 40 and set(words) <= set(vocabulary())


@settings(max_examples=200, deadline=None)
@given(index=st.integers(0, 10**6), key=st.integers(0, 10**6))
def test_no_caption_of_a_twin_is_true_of_the_scene(index: int, key: int) -> None:
    scene = make_scene(0, "train", index)
    assert not judge(caption(make_twin(scene, key), key), scene).correct


@settings(max_examples=200, deadline=None)
@given(index=st.integers(0, 10**6), key=st.integers(0, 10**6), words=st.integers(0, 10**6))
def test_other_words_say_the_same_in_the_same_form(index: int, key: int, words: int) -> None:
    scene = make_scene(0, "text", index)
    one, other = caption(scene, key), caption(scene, key, words)
    assert parse(one) == parse(other)
    assert {caption(scene, key, words + more) for more in range(20)} - {one}


@settings(max_examples=100, deadline=None)
@given(index=st.integers(0, 10**6), key=st.integers(0, 10**6))
def test_large_things_are_named_before_small_ones_and_equals_by_colour(index: int, key: int) -> None:
    named = [each.attributes for each in parse(caption(make_scene(0, "train", index), key)).things]
    assert named == sorted(named, key=lambda each: (each[0] == "small", COLOURS.index(each[1])))


def test_wordings_vary_and_the_vocabulary_is_small() -> None:
    assert len({caption(THREE, key) for key in range(200)}) > 150
    assert len({caption(TWO, key) for key in range(200)}) > 100
    assert len(vocabulary()) <= 60


@pytest.mark.parametrize(
    ("text", "things", "relations"),
    [
        (f"{S}", 1, []),
        (f"{S} is left of {R}", 2, [(0, "left", 1)]),
        (f"There is {S} to the left of {R}.", 2, [(0, "left", 1)]),
        (f"to the right of {S} there is {R}", 2, [(1, "right", 0)]),
        (f"{S} left of {R} and below {H}", 3, [(0, "left", 1), (0, "below", 2)]),
        (f"{S} left of {R}, which is under {H}", 3, [(0, "left", 1), (1, "below", 2)]),
        (f"a picture of {S} with {R} to its right and {H} over it", 3, [(1, "right", 0), (2, "above", 0)]),
        (f"{S} and {R}", 2, []),
        (f"{S}, {R} and {H}", 3, []),
    ],
)
def test_what_each_form_claims(text: str, things: int, relations: list[tuple[int, str, int]]) -> None:
    claims = parse(text)
    assert len(claims.things) == things and list(claims.relations) == relations


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("hello world", "expected 'a' at word 1, found 'hello'"),
        ("a small star", "expected a colour at word 3, found 'star'"),
        ("a small red star", "has no texture"),
        (f"{S} left of", "expected 'a' at word 8, found the end"),
        (f"{S} near {R}", "expected a relation at word 6"),
        (f"{S} left of {R}, which is below {H} and above {S}", "not plain"),
        (" and ".join([S] * 7), "more than 6"),
        (f"left of {S} is {R} and {H}", "expected the end"),
    ],
)
def test_other_texts_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        parse(text)
    assert not judge(text, THREE).correct


@pytest.mark.parametrize(
    ("text", "scene", "reason"),
    [
        (f"a small orange plain star left of {R}", TWO, "has no small orange plain star"),
        (f"a large red plain star left of {R}", TWO, "has no large red plain star"),
        (f"a small red plain star left of {R} with dots", TWO, "is no caption"),
        ("a small blue plain star left of a large red striped ring", TWO, "has no small blue plain star"),
        (S, TWO, "names 1 of the 2 things"),
        (f"{S} left of {R}", THREE, "names 2 of the 3 things"),
        (f"{S} left of {R} and below {H}", TWO, "has no small pink dotted heart"),
        (f"{S} left of {R} and below {S}", TWO, "too many of small red plain star"),
        (f"{S} right of {R}", TWO, "star is not right of the large blue striped ring"),
        (f"{S} left of {R} and above {H}", THREE, "not above"),
        (f"{S} and {R}", TWO, "names no relation"),
    ],
)
def test_each_kind_of_wrong_caption_is_caught(text: str, scene: Scene, reason: str) -> None:
    verdict = judge(text, scene)
    assert not verdict.correct and reason in verdict.reason


def test_right_captions_are_accepted_in_any_order() -> None:
    assert judge(f"{R} right of {S}", TWO).correct
    assert judge(f"{H} above {S} and left of {R}", THREE).correct


def test_partly_right_captions_are_counted() -> None:
    verdict = judge(f"{S} right of {R} and below {H}", THREE)
    assert (verdict.right_things, verdict.named_things) == (3, 3)
    assert (verdict.true_relations, verdict.spoken_relations) == (1, 2)


def test_identical_things_may_be_matched_either_way() -> None:
    scene = Scene((STAR, replace(STAR, x=0.8), replace(HEART, x=0.5)), GROUND, 0)
    assert judge(f"{S} right of {H}, which is right of {S}", scene).correct
    assert not judge(f"{S} left of {H} and left of {S}, which is left of {H}", scene).correct


def test_a_caption_of_too_many_things_is_refused() -> None:
    with pytest.raises(ValueError, match="1 to 3 things, not 4"):
        caption(Scene((STAR, RING, HEART, STAR), GROUND, 0), 0)
