"""Captions cut after some of their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.data.forms.prefix_captioning import PrefixCaptioning, split_at_word
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Text, Visual

CAPTIONS = st.text(st.sampled_from("ab é\n\t.日"), min_size=1).filter(str.strip)


@given(CAPTIONS, st.integers(0, 1 << 62))
def test_both_parts_are_the_caption_and_the_cut_is_at_the_end_of_a_word(caption: str, key: int) -> None:
    visual, *parts = PrefixCaptioning().parts(Record("a", b"", [caption]), key)
    assert visual == Visual() and 1 <= len(parts) <= 2
    assert "".join(part.string for part in parts) == caption.strip()
    assert [part.supervised for part in parts] == [False, True][-len(parts) :]
    assert parts[-1].string.strip()
    if len(parts) == 2:
        assert parts[0].string.strip() and not parts[0].string[-1].isspace() and parts[1].string[0].isspace()
    assert PrefixCaptioning().parts(Record("a", b"", [caption]), key) == [visual, *parts]


def test_every_cut_comes_up_about_as_often() -> None:
    record = Record("a", b"", ["a small  red circle"])
    cuts = ["a small  red circle", " small  red circle", "  red circle", " circle"]
    drawn = [PrefixCaptioning().parts(record, key)[-1].string for key in range(400)]
    assert set(drawn) == set(cuts)
    assert all(70 < drawn.count(cut) < 130 for cut in cuts)
    assert [split_at_word("a b", key) for key in (0, 1)] == [("", "a b"), ("a", " b")]


def test_which_caption_says_nothing_of_where_it_is_cut() -> None:
    """Both are drawn from one key: with as many captions as cuts each caption would always be cut alike."""
    record = Record("a", b"", ["a b", "c d"])
    assert {PrefixCaptioning().parts(record, key)[-1].string for key in range(40)} == {"a b", " b", "c d", " d"}


def test_without_a_prompt_the_image_alone_is_given() -> None:
    assert PrefixCaptioning().prompt_parts(Record("a", b"", ["a b"])) == [Visual()]
    assert PrefixCaptioning().parts(Record("a", b"", ["", "word"]), 5) == [Visual(), Text("word")]


def test_a_prompt_stands_where_a_prefix_stands_and_only_where_a_caption_is_asked_for() -> None:
    record = Record("a", b"", ["a photo of red"])
    prompted = PrefixCaptioning(prompt="a photo of")
    assert prompted.prompt_parts(record) == [Visual(), Text("a photo of", supervised=False)]
    assert prompted.prompt_parts(record) in [prompted.parts(record, key)[:2] for key in range(20)]
    assert all(prompted.parts(record, key) == PrefixCaptioning().parts(record, key) for key in range(20))


@pytest.mark.parametrize("captions", [[], [""], [" \n", "\t"]])
def test_empty_captions_break_the_sample(captions: list[str]) -> None:
    with pytest.raises(BrokenSample, match=r"'a'.*caption"):
        PrefixCaptioning().parts(Record("a", b"", captions), 0)
