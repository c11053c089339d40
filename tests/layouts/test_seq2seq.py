"""Rows of an encoder-decoder: what the encoder reads, what the decoder writes, limits, and reading back."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from vlmtrain.batch import IGNORED_TARGET, TextBatch
from vlmtrain.data.forms.prefix_captioning import PrefixCaptioning
from vlmtrain.data.record import Record
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import NothingToLearn, Part, Text, Visual
from vlmtrain.layouts.seq2seq import Seq2SeqLayout

WORDS = st.lists(st.sampled_from(["a", "red", "circle", "blue", "é", "日本", "x9"]), min_size=1, max_size=6).map(
    " ".join
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def layout(folder: str, max_tokens: int = 200, max_target_tokens: int | None = None) -> Seq2SeqLayout:
    return Seq2SeqLayout(load_tokenizer(folder), max_tokens, max_target_tokens)


@pytest.fixture(scope="module")
def framing_tokenizer(byte_tokenizer: str) -> PreTrainedTokenizerBase:
    """One that puts <s> before a text and </s> behind it, as BART's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(byte_tokenizer)
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=ids)
    return tokenizer


def learned(text: TextBatch, row: int) -> list[int]:
    assert text.targets is not None
    return [token for token in text.targets[row].tolist() if token != IGNORED_TARGET]


def read_words(rows: Seq2SeqLayout, text: TextBatch, row: int) -> str:
    is_word = text.attention_mask[row] & ~text.visual_mask[row]
    return str(rows.tokenizer.decode(text.input_ids[row][is_word], skip_special_tokens=True))


def test_t34_one_row_is_laid_out_as_blip2_does_for_flan_t5(byte_tokenizer: str) -> None:
    rows = layout(byte_tokenizer)
    prompt, answer = (rows.tokenizer.encode(words, add_special_tokens=False) for words in ("what?", " red"))
    text = rows.write([[Visual(), Text("what?", supervised=False), Text(" red")]], lambda tiles: 3 * tiles)
    pad, end = rows.tokenizer.pad_token_id, rows.tokenizer.eos_token_id
    assert text.input_ids[0].tolist() == [pad] * 3 + [*prompt, end]
    assert text.visual_mask[0].tolist() == [True] * 3 + [False] * (len(prompt) + 1)
    assert text.targets is not None and text.targets[0].tolist() == [*answer, end]
    assert (text.placeholders, text.supervised, text.truncated) == (3, len(answer) + 1, 0)


@QUICK
@given(st.lists(st.tuples(st.one_of(st.just(""), WORDS), WORDS, st.integers(0, 3)), min_size=1, max_size=4))
def test_t34_the_encoder_reads_images_and_text_and_the_decoder_has_the_rest(
    byte_tokenizer: str, drawn: list[tuple[str, str, int]]
) -> None:
    rows = layout(byte_tokenizer)
    samples: list[list[Part]] = [
        [*[Visual(1 + tiles)] * bool(tiles), Text(prompt, supervised=False), Text(" " + answer)]
        for prompt, answer, tiles in drawn
    ]
    text = rows.write(samples, lambda tiles: 2 * tiles)
    assert text.targets is not None and text.targets.shape[0] == len(drawn)
    assert text.input_ids.shape == text.attention_mask.shape == text.visual_mask.shape
    assert int((text.targets != IGNORED_TARGET).sum()) == text.supervised
    assert int(text.visual_mask.sum()) == text.placeholders == sum(2 * (1 + tiles) for *_, tiles in drawn if tiles)
    assert text.supervised_per_sample == (text.targets != IGNORED_TARGET).sum(1).tolist()
    for row, (prompt, answer, tiles) in enumerate(drawn):
        num_images = 2 * (1 + tiles) if tiles else 0
        num_words = len(rows.tokenizer.encode(prompt, add_special_tokens=False)) + 1
        length = int(text.attention_mask[row].sum())
        assert length == num_images + num_words and text.attention_mask[row, :length].all()
        assert read_words(rows, text, row) == prompt
        assert rows.read(learned(text, row)) == answer and learned(text, row)[-1] in rows.stop_ids
        assert (text.targets[row, len(learned(text, row)) :] == IGNORED_TARGET).all()


@QUICK
@given(WORDS, st.integers(0, 50))
def test_prefix_and_rest_of_a_caption_come_back_from_the_two_rows(byte_tokenizer: str, caption: str, key: int) -> None:
    rows = layout(byte_tokenizer)
    text = rows.write([PrefixCaptioning().parts(Record("a", b"", [caption]), key)], lambda tiles: 2)
    rest = str(rows.tokenizer.decode(learned(text, 0), skip_special_tokens=True))
    assert read_words(rows, text, 0) + rest == caption and rest
    whole = rows.tokenizer.encode(caption, add_special_tokens=False)
    assert text.input_ids[0, 2:-1].tolist() + learned(text, 0)[:-1] == whole  # the cut is where a token ends


def test_a_row_without_image_and_prompt_holds_its_end(byte_tokenizer: str) -> None:
    rows = layout(byte_tokenizer)
    text = rows.write([[Text("a red circle")], [Visual(), Text(" blue")]], lambda tiles: 2)
    assert text.input_ids[0][text.attention_mask[0]].tolist() == [rows.tokenizer.eos_token_id]
    assert rows.write_prompts([[]], lambda tiles: 2).input_ids.tolist() == [[rows.tokenizer.eos_token_id]]


def test_of_a_conversation_the_last_answer_is_learned_and_the_others_are_read(byte_tokenizer: str) -> None:
    rows = layout(byte_tokenizer)
    turns = [Visual(), Text("one?", False), Text(" red"), Text(" two?", False), Text(" dark"), Text(" blue")]
    text = rows.write([turns], lambda tiles: 1)
    assert read_words(rows, text, 0) == "one? red two?"
    assert rows.read(learned(text, 0)) == "dark blue" and learned(text, 0).count(rows.stop_ids[0]) == 1
    asked = rows.write_prompts([turns[:4]], lambda tiles: 1)
    assert torch.equal(asked.input_ids, text.input_ids) and asked.targets is None and asked.supervised == 0


def test_what_stands_behind_the_answer_is_read_as_well(byte_tokenizer: str) -> None:
    rows = layout(byte_tokenizer)
    text = rows.write([[Text("left", False), Text(" red"), Visual(), Text(" right", False)]], lambda tiles: 2)
    assert read_words(rows, text, 0) == "left right" and text.placeholders == 2
    assert rows.read(learned(text, 0)) == "red"


@QUICK
@given(WORDS, WORDS, st.integers(1, 12), st.integers(1, 12))
def test_each_side_is_cut_by_its_own_limit_and_counted(
    byte_tokenizer: str, prompt: str, answer: str, limit: int, target_limit: int
) -> None:
    rows = layout(byte_tokenizer, limit, target_limit)
    read, written = (rows.tokenizer.encode(words, add_special_tokens=False) for words in (prompt, answer))
    text = rows.write([[Visual(), Text(prompt, False), Text(answer)]], lambda tiles: 2)
    end = rows.tokenizer.eos_token_id
    assert text.input_ids[0].tolist() == [rows.pad_id] * 2 + read[:limit] + [end]
    assert learned(text, 0) == [*written, end][:target_limit]
    assert text.truncated == int(len(read) > limit or len(written) + 1 > target_limit)


def test_texts_are_framed_as_the_tokenizer_frames_them(framing_tokenizer: PreTrainedTokenizerBase) -> None:
    rows = Seq2SeqLayout(framing_tokenizer, 50)
    begin, end = framing_tokenizer.convert_tokens_to_ids(["<s>", "</s>"])
    text = rows.write([[Visual(), Text("what?", False), Text(" red")]], lambda tiles: 2)
    assert text.input_ids[0].tolist() == [rows.pad_id] * 2 + framing_tokenizer("what?").input_ids
    assert learned(text, 0) == framing_tokenizer(" red").input_ids
    assert learned(text, 0)[0] == begin and rows.stop_ids == [end] and rows.read(learned(text, 0)) == "red"
    assert rows.write_prompts([[]], lambda tiles: 2).input_ids.tolist() == [[begin, end]]


def test_prompts_are_padded_on_the_right(byte_tokenizer: str) -> None:
    """BART counts positions from the beginning of a row, padding included."""
    rows = layout(byte_tokenizer)
    text = rows.write_prompts([[Text("a", False)], [Text("what is red", False)]], lambda tiles: 0)
    assert text.attention_mask[0].tolist()[:2] == [True, True] and not text.attention_mask[0, -1]


@pytest.mark.parametrize("caption", ["", "   "])
def test_empty_answers_are_refused(byte_tokenizer: str, caption: str) -> None:
    with pytest.raises(NothingToLearn, match="empty") as refused:
        layout(byte_tokenizer).write([[Text("red")], [Visual(), Text("what?", False), Text(caption)]], lambda tiles: 1)
    assert refused.value.row == 1


def test_misuse_is_named(byte_tokenizer: str) -> None:
    with pytest.raises(ValueError, match="max_target_tokens 0"):
        layout(byte_tokenizer, max_target_tokens=0)
    tokenizer = load_tokenizer(byte_tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        Seq2SeqLayout(tokenizer, 8)
