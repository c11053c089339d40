"""Documents: parts stand in reading order, never more images than asked for, prompts end at the last image."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.data.forms.interleaved import Interleaved
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Text, Visual


def document(shape: str, **extra: object) -> Record:
    """ "i" is an image, any other letter a text of its own."""
    texts = [None if letter == "i" else f"{letter}{place}" for place, letter in enumerate(shape)]
    return Record("d", [b"x"] * shape.count("i"), [], {"texts": texts, **extra})


def spell(parts: list) -> str:
    return " ".join(f"<{part.images[0]}>" if isinstance(part, Visual) else part.string for part in parts)


shapes = st.text("it", min_size=1, max_size=40)


@given(shapes, st.integers(0, 2**60), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0]))
def test_t48_never_more_images_than_allowed_and_a_run_in_order(shape: str, key: int, most: int, share: float) -> None:
    record = document(shape)
    try:
        parts = Interleaved(most, share, joint=" ").parts(record, key)
    except BrokenSample:
        assert "t" not in shape or "i" in shape
        return
    images = [part.images[0] for part in parts if isinstance(part, Visual)]
    assert len(images) <= most and images == list(range(images[0], images[0] + len(images)) if images else [])
    words = [word for part in parts if isinstance(part, Text) for word in part.string.split()]
    told = [word for word in record.extra["texts"] if word is not None]
    assert words == told[told.index(words[0]) : told.index(words[0]) + len(words)], "a run of the texts, in order"
    assert isinstance(parts[-1], Text) and all(part.supervised for part in parts if isinstance(part, Text))
    assert not any(isinstance(one, Text) and isinstance(two, Text) for one, two in pairwise(parts))
    if shape.count("i") <= most:
        assert words == told
    if share == 0:
        assert spell(parts) in spell_all(record), "images and texts stand as they stood"


def spell_all(record: Record) -> str:
    numbers = iter(range(len(record.images)))
    return " ".join(f"<{next(numbers)}>" if text is None else text for text in record.extra["texts"])


def test_reading_order_and_the_reading_with_texts_first() -> None:
    assert spell(Interleaved().parts(document("titit"), 0)) == "t0 <0> t2 <1> t4"
    assert spell(Interleaved(text_first=1.0, joint=" ").parts(document("titit"), 0)) == "<0> t0 <1> t2 t4"
    assert spell(Interleaved(text_first=1.0).parts(document("tiit"), 0)) == "<0> <1> t0\n\nt3"
    both = {spell(Interleaved(text_first=0.5).parts(document("ti"), key)) for key in range(20)}
    assert both == {"t0", "<0> t0"}


def test_every_run_of_images_gets_its_turn() -> None:
    runs = {spell(Interleaved(2).parts(document("titititi"), key)) for key in range(60)}
    assert runs == {"t0 <0> t2 <1> t4", "<1> t4 <2> t6", "<2> t6"}


def test_33_images_are_five_in_training_and_all_of_them_in_a_prompt() -> None:
    record = document("it" * 32 + "i")
    for key in range(40):
        assert sum(isinstance(part, Visual) for part in Interleaved().parts(record, key)) <= 5
    prompt = Interleaved().prompt_parts(record)
    assert sum(isinstance(part, Visual) for part in prompt) == 33 and prompt[-1] == Visual(images=(32,))


def test_a_prompt_goes_up_to_the_last_image_and_asks() -> None:
    assert spell(Interleaved().prompt_parts(document("titit"))) == "t0 <0> t2 <1>"
    asked = Interleaved().prompt_parts(document("itit", questions=[{"text": "this is a", "answer": "dax"}]))
    assert spell(asked) == "<0> t1 <1> this is a" and asked[-1] == Text("this is a", supervised=False)
    assert asked[1] == Text("t1"), "as in training, so that its row is the same"


def test_text_before_the_first_image_may_be_left_unlearned() -> None:
    parts = Interleaved(learn_before_images=False).parts(document("ttitit"), 0)
    assert [part.supervised for part in parts if isinstance(part, Text)] == [False, True, True]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (document("iii"), "no text to learn"),
        (Record("d", [b"x"], [], {"texts": [None, "  "]}), "no text to learn"),
        (Record("d", [], [], {"texts": []}), "no text to learn"),
        (Record("d", [b"x"], [], {"texts": [None, "a", None]}), "room for 2 images and it has 1"),
        (Record("d", [b"x"] * 33, [], {"texts": ["a"]}), "room for 0 images and it has 33"),
        (Record("d", [b"x"], ["a caption"]), "no list of"),
    ],
)
def test_what_is_no_document_is_named(record: Record, reason: str) -> None:
    with pytest.raises(BrokenSample, match=f"'d'.*{reason}"):
        Interleaved().parts(record, 0)


def test_a_document_without_images_is_plain_text_and_gives_no_prompt() -> None:
    assert Interleaved().parts(document("tt"), 0) == [Text("t0\n\nt1")]
    with pytest.raises(BrokenSample, match="no image to write about"):
        Interleaved().prompt_parts(document("tt"))


@pytest.mark.parametrize("wrong", [{"max_images": 0}, {"text_first": 1.5}])
def test_wrong_arguments_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        Interleaved(**wrong)
