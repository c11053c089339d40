"""T30: rows with a place for the word of an image, by each layout of text encoders."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Layout, Part, Text, Visual
from vlmtrain.layouts.fixed_length import FixedLengthLayout
from vlmtrain.layouts.open_clip import OpenClipLayout
from vlmtrain.layouts.pair import PairLayout
from vlmtrain.layouts.pseudo_words import PseudoWordLayout, parts_of_prompt

WORDS = st.lists(st.sampled_from(["a", "red", "circle", "blue", "é"]), min_size=1, max_size=4).map(" ".join)
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def one(tiles: int) -> int:
    return tiles


@QUICK
@given(
    prompts=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4),
    layout=st.sampled_from((PairLayout, FixedLengthLayout)),
)
def test_t30_the_place_is_where_the_image_stands_between_the_texts(
    byte_tokenizer: str, prompts: list[tuple[str, str]], layout: type[PairLayout | FixedLengthLayout]
) -> None:
    inner = layout(load_tokenizer(byte_tokenizer), 60)
    samples: list[list[Part]] = [[Text(before), Visual(), Text(f" {behind}")] for before, behind in prompts]
    text = PseudoWordLayout(inner).write(samples, one)
    assert text.placeholders == len(prompts)
    for row, (before, behind) in enumerate(prompts):
        tokens = [inner.tokenizer(each, add_special_tokens=False).input_ids for each in (before, f" {behind}")]
        first = [inner.first_id] if isinstance(inner, PairLayout) else []
        place = len(first) + len(tokens[0])
        assert text.visual_mask[row].nonzero().flatten().tolist() == [place]
        wanted = [*first, *tokens[0], *tokens[1], inner.last_id]
        kept = text.input_ids[row].tolist()
        assert kept[:place] + kept[place + 1 : len(wanted) + 1] == wanted


def test_plain_texts_are_written_as_without_it(byte_tokenizer: str) -> None:
    inner = PairLayout(load_tokenizer(byte_tokenizer), 20)
    samples: list[list[Part]] = [[Text("a red circle")], [Text("blue")]]
    plain, text = inner.write(samples, one), PseudoWordLayout(inner).write(samples, one)
    assert torch.equal(plain.input_ids, text.input_ids) and not text.visual_mask.any() and text.placeholders == 0
    assert PseudoWordLayout(inner).read(text.input_ids[1].tolist()[1:]) == "blue"


def test_t30_a_wrong_number_of_placeholders_is_refused(byte_tokenizer: str) -> None:
    for prompt, found in (("a photo", 0), ("* and *", 2)):
        with pytest.raises(ValueError, match=rf"has {found} \*; it takes exactly one"):
            parts_of_prompt(prompt)
    layout = PseudoWordLayout(PairLayout(load_tokenizer(byte_tokenizer), 12))
    with pytest.raises(ValueError, match=r"room for 1 words of images and, as written, 2 \*"):
        layout.write([[Text("two * and "), Visual()]], one)
    with pytest.raises(ValueError, match=r"as written, 0 \*.*raise max_tokens"):
        layout.write([[Text("a very long prompt for one row"), Visual()]], one)
    with pytest.raises(ValueError, match="only read"):
        layout.write_prompts([[Text("a")]], one)


def test_a_prompt_keeps_the_blank_behind_the_image_only() -> None:
    assert parts_of_prompt("a photo of *") == [Text("a photo of"), Visual()]
    assert parts_of_prompt("* in blue") == [Visual(), Text(" in blue")]
    assert parts_of_prompt("a sketch of *, small") == [Text("a sketch of"), Visual(), Text(", small")]


def test_the_mask_token_marks_the_place_where_the_tokenizer_has_no_star(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    def folder(name: str, words: list[str]) -> str:
        BertTokenizerFast(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    starless = PseudoWordLayout(PairLayout(load_tokenizer(folder("starless", [*special, "a"])), 9))
    assert starless.marker == "[MASK]" and starless.marker_id == 4
    text = starless.write([[Text("a odd"), Visual(), Text("odd")]], one)
    assert text.input_ids.tolist() == [[2, 5, 1, 4, 1, 3]] and text.visual_mask.nonzero().tolist() == [[0, 3]]
    with_star = PseudoWordLayout(PairLayout(load_tokenizer(folder("star", [*special, "a", "*"])), 9))
    assert with_star.marker == "*" and with_star.marker_id == 6


def test_a_tokenizer_with_neither_is_named() -> None:
    class Nothing:
        name_or_path = "nothing"
        unk_token_id = 1

        def __call__(self, strings: list[str], context_length: int) -> torch.Tensor:
            return torch.tensor([[2, 1, 3]] * len(strings))

    layout: Layout = OpenClipLayout(Nothing(), 3, 0)
    with pytest.raises(ValueError, match=r"'nothing' knows no \*"):
        PseudoWordLayout(layout)


def test_t30_rows_of_open_clip_have_a_place_too() -> None:
    open_clip = pytest.importorskip("open_clip")
    layout = PseudoWordLayout(OpenClipLayout(open_clip.get_tokenizer("ViT-B-32"), 77, 0))
    text = layout.write([parts_of_prompt("a photo of *"), parts_of_prompt("a blue * , small")], one)
    assert layout.marker == "*" and text.placeholders == 2
    assert text.visual_mask.nonzero().tolist() == [[0, 4], [1, 3]]
    with pytest.raises(ValueError, match="write blanks around the image"):  # *, is one token there
        layout.write([parts_of_prompt("a blue *, small")], one)
