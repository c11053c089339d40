"""Rows of a text encoder."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import NothingToLearn, Text, Visual
from vlmtrain.layouts.pair import PairLayout

WORDS = st.lists(st.sampled_from(["a", "red", "circle", "blue", "é", "日本"]), min_size=1, max_size=6).map(" ".join)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(3, 40))
def test_rows_have_class_token_text_and_separator_and_keep_to_the_limit(
    byte_tokenizer: str, captions: list[str], limit: int
) -> None:
    layout = PairLayout(load_tokenizer(byte_tokenizer), limit)
    text = layout.write([[Visual(), Text(caption)] for caption in captions], lambda tiles: 7)
    assert text.placeholders == 0 and not text.visual_mask.any() and text.input_ids.shape[1] <= limit
    assert text.targets is not None and int((text.targets != IGNORED_TARGET).sum()) == text.supervised
    cut = 0
    for row, caption in enumerate(captions):
        tokens = layout.tokenizer.encode(caption, add_special_tokens=False)
        cut += len(tokens) > limit - 2
        wanted = [layout.first_id, *tokens[: limit - 2], layout.last_id]
        length = len(wanted)
        assert text.input_ids[row, :length].tolist() == wanted
        assert text.attention_mask[row].sum() == length
        assert text.targets[row, : length - 1].tolist() == wanted[1:]
        assert (text.targets[row, length - 1 :] == IGNORED_TARGET).all()
        if len(tokens) <= limit - 2:
            assert layout.read(wanted[1:]) == caption
    assert text.truncated == cut


def test_prompts_are_left_open(byte_tokenizer: str) -> None:
    layout = PairLayout(load_tokenizer(byte_tokenizer), 20)
    text = layout.write_prompts([[Visual(), Text("a")], [Visual()]], lambda tiles: 7)
    assert text.input_ids[1].tolist() == [layout.pad_id, layout.first_id]
    assert text.input_ids[0, 0] == layout.first_id and layout.last_id not in text.input_ids
    assert text.targets is None


def test_empty_and_unsupervised_captions_are_refused(byte_tokenizer: str) -> None:
    layout = PairLayout(load_tokenizer(byte_tokenizer), 20)
    for part in (Text(""), Text("  "), Text("asked", supervised=False)):
        with pytest.raises(ValueError, match="Nothing to learn"):
            layout.write([[Visual(), part]], lambda tiles: 1)
    with pytest.raises(ValueError, match="max_tokens 2"):
        PairLayout(layout.tokenizer, 2)


def test_a_caption_that_the_tokenizer_cannot_spell_is_named_by_its_row(tmp_path: Path) -> None:
    """BERT drops characters of no width: the caption is not empty, and yet there is nothing to learn."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog"]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path)
    layout = PairLayout(load_tokenizer(str(tmp_path)), 20)
    with pytest.raises(NothingToLearn, match="no caption within 20 tokens") as refused:
        layout.write([[Visual(), Text("a dog")], [Visual(), Text("\u200b")]], lambda tiles: 1)
    assert refused.value.row == 1
