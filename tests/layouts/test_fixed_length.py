import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from vlmtrain.layout import NothingToLearn, Text, Visual
from vlmtrain.layouts.fixed_length import FixedLengthLayout


@settings(deadline=None, max_examples=25)
@given(
    strings=st.lists(st.text("abc d", min_size=1).filter(str.strip), min_size=1, max_size=4), room=st.integers(2, 12)
)
def test_rows_have_one_length_and_end_before_their_padding(byte_tokenizer: str, strings: list[str], room: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(byte_tokenizer)
    layout = FixedLengthLayout(tokenizer, room)
    batch = layout.write([[Visual(), Text(string)] for string in strings], lambda tiles: 0)
    assert batch.input_ids.shape == (len(strings), room) and batch.attention_mask.all() and batch.targets is None
    wanted = [tokenizer(string, add_special_tokens=False).input_ids for string in strings]
    for row, ids in zip(batch.input_ids.tolist(), wanted, strict=True):
        end = min(len(ids), room - 1)
        assert row == [*ids[:end], layout.last_id, *[layout.pad_id] * (room - end - 1)]
        assert layout.read(row) == tokenizer.decode(ids[:end], skip_special_tokens=True).strip()
    assert batch.truncated == sum(len(ids) > room - 1 for ids in wanted)


def test_what_cannot_be_written_is_named(byte_tokenizer: str) -> None:
    layout = FixedLengthLayout(AutoTokenizer.from_pretrained(byte_tokenizer), 8)
    with pytest.raises(NothingToLearn, match="no text"):
        layout.write([[Text("a")], [Visual(), Text(" ")]], lambda tiles: 0)
    with pytest.raises(ValueError, match="only read"):
        layout.write_prompts([[Text("a")]], lambda tiles: 0)
    assert torch.equal(layout.write([[Text("a")]], lambda tiles: 0).visual_mask, torch.zeros(1, 8, dtype=torch.bool))
