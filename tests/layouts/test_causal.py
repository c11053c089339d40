"""Rows of a decoder-only language model: alignment, limits, and what generation gives back."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmtrain.batch import IGNORED_TARGET, TextBatch
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import NothingToLearn, Part, Text, Visual
from vlmtrain.layouts.causal import CausalLayout

WORDS = st.lists(st.sampled_from(["a", "red", "circle", "blue", "é", "日本", "x9"]), min_size=1, max_size=6).map(
    " ".join
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def layout(folder: str, max_tokens: int = 200, terminator: str | None = "\n") -> CausalLayout:
    return CausalLayout(load_tokenizer(folder), max_tokens, terminator)


def supervised_tokens(text: TextBatch, row: int) -> list[int]:
    assert text.targets is not None
    return [token for token in text.targets[row].tolist() if token != IGNORED_TARGET]


def test_one_row_is_laid_out_as_blip2_does_for_opt(byte_tokenizer: str) -> None:
    rows = layout(byte_tokenizer)
    tokenizer = rows.tokenizer
    prompt, caption = (
        tokenizer.encode("what?", add_special_tokens=False),
        tokenizer.encode(" red", add_special_tokens=False),
    )
    newline = tokenizer.encode("\n", add_special_tokens=False)
    text = rows.write([[Visual(), Text("what?", supervised=False), Text(" red")]], lambda tiles: 3 * tiles)
    pad, bos = tokenizer.pad_token_id, tokenizer.bos_token_id
    assert text.input_ids[0].tolist() == [pad] * 3 + [bos, *prompt, *caption, *newline]
    assert text.visual_mask[0].tolist() == [True] * 3 + [False] * (len(text.input_ids[0]) - 3)
    before = 3 + 1 + len(prompt)
    wanted = [IGNORED_TARGET] * (before - 1) + caption + newline + [IGNORED_TARGET]
    assert text.targets is not None and text.targets[0].tolist() == wanted
    assert (text.placeholders, text.supervised, text.truncated) == (3, len(caption) + 1, 0)


@QUICK
@given(st.lists(st.tuples(WORDS, WORDS, st.integers(0, 3)), min_size=1, max_size=4))
def test_targets_are_the_next_supervised_token(byte_tokenizer: str, drawn: list[tuple[str, str, int]]) -> None:
    rows = layout(byte_tokenizer)
    samples: list[list[Part]] = [
        [*[Visual(1 + tiles)] * bool(tiles), Text(prompt, supervised=False), Text(" " + answer)]
        for prompt, answer, tiles in drawn
    ]
    text = rows.write(samples, lambda tiles: 2 * tiles)
    assert text.targets is not None
    assert text.input_ids.shape == text.targets.shape == text.attention_mask.shape == text.visual_mask.shape
    assert int((text.targets != IGNORED_TARGET).sum()) == text.supervised
    assert int(text.visual_mask.sum()) == text.placeholders == sum(2 * (1 + tiles) for *_, tiles in drawn if tiles)
    for row, (_, answer, _) in enumerate(drawn):
        length = int(text.attention_mask[row].sum())
        assert text.attention_mask[row, :length].all()  # padding stands on the right
        ids, targets = text.input_ids[row].tolist(), text.targets[row].tolist()
        for position, target in enumerate(targets):
            assert target in (IGNORED_TARGET, [*ids, None][position + 1])
        assert rows.read(supervised_tokens(text, row)) == answer
        assert supervised_tokens(text, row)[-1] == rows.terminator_id


@QUICK
@given(WORDS, st.integers(1, 12))
def test_long_captions_are_cut_by_rule_and_counted(byte_tokenizer: str, caption: str, limit: int) -> None:
    rows = layout(byte_tokenizer, limit)
    whole = [*rows.tokenizer.encode(caption, add_special_tokens=False), rows.terminator_id]
    text = rows.write([[Visual(), Text(caption)]], lambda tiles: 2)
    assert supervised_tokens(text, 0) == whole[:limit]
    assert text.truncated == int(len(whole) > limit)


@QUICK
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_prompts_are_padded_on_the_left_and_begin_as_training_rows_do(byte_tokenizer: str, prompts: list[str]) -> None:
    rows = layout(byte_tokenizer)
    asked = rows.write_prompts([[Visual(), Text(prompt, supervised=False)] for prompt in prompts], lambda tiles: 2)
    taught = rows.write([[Visual(), Text(prompt, False), Text(" yes")] for prompt in prompts], lambda tiles: 2)
    assert asked.targets is None and asked.placeholders == 2 * len(prompts)
    for row in range(len(prompts)):
        kept = asked.input_ids[row][asked.attention_mask[row]].tolist()
        assert asked.attention_mask[row, -len(kept) :].all()
        assert taught.input_ids[row, : len(kept)].tolist() == kept
        assert asked.visual_mask[row].sum() == 2


def test_every_turn_of_a_conversation_ends_and_only_answers_are_learned(byte_tokenizer: str) -> None:
    rows = layout(byte_tokenizer)
    turns = [Visual(), Text("one?", False), Text(" red"), Text("two?", False), Text(" blue")]
    learned = supervised_tokens(rows.write([turns], lambda tiles: 1), 0)
    assert learned.count(rows.terminator_id) == 2
    first_end = learned.index(rows.terminator_id)
    assert rows.read(learned) == "red" and rows.read(learned[first_end + 1 :]) == "blue"
    asked = rows.write_prompts([turns[:4]], lambda tiles: 1)
    assert asked.input_ids[0].tolist().count(rows.terminator_id) == 1


def test_reading_stops_at_terminator_or_end_and_skips_special_tokens(byte_tokenizer: str) -> None:
    rows = layout(byte_tokenizer)
    red = rows.tokenizer.encode(" red", add_special_tokens=False)
    for end in rows.stop_ids:
        assert rows.read([rows.pad_id, *red, end, *red]) == "red"
    assert layout(byte_tokenizer, terminator=None).terminator_id == rows.tokenizer.eos_token_id


@pytest.mark.parametrize("caption", ["", "   "])
def test_empty_captions_are_refused(byte_tokenizer: str, caption: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        layout(byte_tokenizer).write([[Visual(), Text(caption)]], lambda tiles: 1)


def test_rows_without_target_are_refused_by_name(byte_tokenizer: str) -> None:
    with pytest.raises(ValueError, match=r"a long prompt.*max_tokens"):
        layout(byte_tokenizer, 3).write([[Text("a long prompt", False), Text(" red")]], lambda tiles: 1)
    with pytest.raises(NothingToLearn, match="<visual>") as refused:
        layout(byte_tokenizer).write([[Text(" red")], [Visual(), Text("only asked", False)]], lambda tiles: 1)
    assert refused.value.row == 1


def test_terminators_of_several_tokens_are_refused(byte_tokenizer: str) -> None:
    with pytest.raises(ValueError, match="one token"):
        layout(byte_tokenizer, terminator="\n###\n")
