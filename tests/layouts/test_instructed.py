"""Rows beside rows: what a connector is told."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Part, Text, Visual
from vlmtrain.layouts.causal import CausalLayout
from vlmtrain.layouts.instructed import InstructedLayout

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PARTS = st.lists(
    st.one_of(
        st.just(Visual()),
        st.builds(Text, st.sampled_from(["what?", " red", "a small circle", "é"]), st.booleans()),
    ),
    max_size=5,
)


def make(folder: str, max_tokens: int = 40) -> InstructedLayout:
    tokenizer = load_tokenizer(folder)
    return InstructedLayout(CausalLayout(tokenizer, 200), tokenizer, max_tokens)


def told(layout: InstructedLayout, samples: list[list[Part]]) -> list[str]:
    instruction = layout.write_prompts(samples, lambda tiles: 2).instruction
    assert instruction is not None
    kept = [row[mask].tolist() for row, mask in zip(instruction.input_ids, instruction.attention_mask, strict=True)]
    assert all(row[0] == layout.prompts.first_id and row[-1] == layout.prompts.last_id for row in kept)
    return [layout.prompts.tokenizer.decode(row[1:-1]) for row in kept]


def test_a_prompt_is_all_text_that_is_not_supervised(byte_tokenizer: str) -> None:
    samples: list[list[Part]] = [
        [Visual(), Text("Question: what?", False), Text(" Answer:", False), Text(" red")],
        [Visual(), Text("one?", False), Text(" red"), Text("two?", False), Text(" blue")],
        [Visual(), Text("a caption")],
        [Text("only ", False), Visual(), Text("words", False), Text(".")],
    ]
    assert told(make(byte_tokenizer), samples) == ["Question: what? Answer:", "one? two?", "", "only  words"]


@QUICK
@given(st.lists(PARTS, min_size=1, max_size=4))
def test_rows_of_the_language_model_stay_as_they_were(byte_tokenizer: str, samples: list[list[Part]]) -> None:
    """Also: no answer is part of an instruction, padding stands on the right, and each row is its own."""
    layout = make(byte_tokenizer)
    both, plain = (each.write_prompts(samples, lambda tiles: 2) for each in (layout, layout.inner))
    assert torch.equal(both.input_ids, plain.input_ids) and torch.equal(both.attention_mask, plain.attention_mask)
    assert (both.placeholders, both.truncated) == (plain.placeholders, plain.truncated)
    instruction = both.instruction
    assert instruction is not None and instruction.targets is None and instruction.supervised == 0
    lengths = instruction.attention_mask.sum(1, keepdim=True)
    assert torch.equal(instruction.attention_mask, torch.arange(instruction.input_ids.shape[1]) < lengths)
    assert not instruction.visual_mask.any()
    for row, parts in enumerate(samples):
        without: list[Part] = [Text("", True) if isinstance(part, Text) and part.supervised else part for part in parts]
        alone = layout.write_prompts([without], lambda tiles: 2).instruction
        assert alone is not None
        assert instruction.input_ids[row][instruction.attention_mask[row]].tolist() == alone.input_ids[0].tolist()


def test_a_prompt_that_is_cut_keeps_its_separator_and_is_counted(byte_tokenizer: str) -> None:
    layout = make(byte_tokenizer, max_tokens=5)
    text = layout.write([[Visual(), Text("what colour is the circle?", False), Text(" red")]], lambda tiles: 2)
    assert text.instruction is not None and text.instruction.input_ids.shape == (1, 5)
    assert text.instruction.input_ids[0, -1] == layout.prompts.last_id
    assert text.truncated == text.instruction.truncated == 1


def test_reading_is_the_language_model_s(byte_tokenizer: str) -> None:
    layout = make(byte_tokenizer)
    ids = layout.inner.tokenizer.encode(" red\nblue", add_special_tokens=False)
    assert layout.read(ids) == layout.inner.read(ids) == "red"


@pytest.mark.parametrize("max_tokens", [1, 2])
def test_a_limit_without_room_for_words_is_refused(byte_tokenizer: str, max_tokens: int) -> None:
    with pytest.raises(ValueError, match=f"max_tokens {max_tokens}"):
        make(byte_tokenizer, max_tokens)
