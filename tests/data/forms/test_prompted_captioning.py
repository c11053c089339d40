"""Captions asked for in one of several wordings."""

import pytest

from vlmtrain.data.forms.prompted_captioning import PromptedCaptioning
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text, Visual

HUMAN = "H: <Img><image></Img> tell. A:"
ASKED: list[Part] = [Text("H: <Img>", supervised=False), Visual(), Text("</Img> tell. A:", supervised=False)]


def test_the_image_stands_where_its_mark_is_and_a_blank_before_the_caption() -> None:
    record = Record("a", [], [" a star "])
    assert PromptedCaptioning([HUMAN]).prompt_parts(record) == ASKED
    assert PromptedCaptioning([HUMAN]).parts(record, 3) == [*ASKED, Text(" a star")]


def test_a_caption_right_behind_the_image_has_no_blank() -> None:
    record = Record("a", [], ["a star"])
    expected = [Text("see", supervised=False), Visual(), Text("a star")]
    assert PromptedCaptioning(["see<image>"]).parts(record, 0) == expected
    assert PromptedCaptioning(["<image>"]).prompt_parts(record) == [Visual()]


def test_prompt_and_caption_are_drawn_apart_from_each_other_and_by_the_key_alone() -> None:
    """Drawn from one key alike, each prompt would always come with the same caption."""
    form = PromptedCaptioning(["one<image>", "two<image>"])
    record = Record("a", [], ["x", "y"])
    drawn = [tuple(part.string for part in form.parts(record, key) if isinstance(part, Text)) for key in range(400)]
    assert {pair: 60 < drawn.count(pair) < 140 for pair in set(drawn)} == {
        (prompt, caption): True for prompt in ("one", "two") for caption in ("x", "y")
    }
    assert drawn[7] == tuple(part.string for part in form.parts(record, 7) if isinstance(part, Text))


def test_evaluation_asks_with_the_first_prompt() -> None:
    form = PromptedCaptioning(["one<image>", "two<image>"])
    assert form.prompt_parts(Record("a", [], [])) == [Text("one", supervised=False), Visual()]


@pytest.mark.parametrize("prompts", [[], ["tell"], ["<image>", "<image> and <image>"]])
def test_a_prompt_has_one_place_for_the_image(prompts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"prompts=.*<image>"):
        PromptedCaptioning(prompts)


@pytest.mark.parametrize("captions", [[], ["", " \n"]])
def test_empty_captions_break_the_sample(captions: list[str]) -> None:
    with pytest.raises(BrokenSample, match=r"'a'.*caption"):
        PromptedCaptioning([HUMAN]).parts(Record("a", [], captions), 0)
