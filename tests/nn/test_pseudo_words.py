"""T30: a pseudo word stands exactly where its place is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vlmtrain.nn.pseudo_words import putting_in


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=5), seed=st.integers(0, 99))
def test_t30_all_other_input_embeddings_are_those_of_the_table(rows: list[list[bool]], seed: int) -> None:
    torch.manual_seed(seed)
    table, places = nn.Embedding(7, 3), torch.tensor(rows)
    ids = torch.randint(0, 7, places.shape)
    words = torch.randn(len(rows), 3, requires_grad=True)
    plain = table(ids)
    with putting_in(table, words, places):
        found = table(ids)
    for row in range(len(rows)):
        for place in range(4):
            assert torch.equal(found[row, place], words[row] if places[row, place] else plain[row, place])
    found.sum().backward()
    assert words.grad is not None and torch.equal(words.grad, places.sum(1, keepdim=True).expand(-1, 3).float())
    assert torch.equal(table(ids), plain), "behind the block, the table is as it was"


def test_words_take_the_format_of_the_table() -> None:
    table = nn.Embedding(7, 3).bfloat16()
    with putting_in(table, torch.ones(1, 3), torch.tensor([[True, False]])):
        found = table(torch.tensor([[1, 2]]))
    assert found.dtype == torch.bfloat16 and found[0, 0].tolist() == [1, 1, 1]


def test_nothing_stays_behind_where_the_model_fails() -> None:
    table, ids = nn.Embedding(7, 3), torch.tensor([[1]])
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        putting_in(table, torch.ones(1, 3), torch.tensor([[True]])),
    ):
        raise RuntimeError("out of memory")
    assert not torch.equal(table(ids), torch.ones(1, 1, 3))
    with (
        pytest.raises(AssertionError, match="read 0 times"),
        putting_in(table, torch.ones(1, 3), torch.tensor([[True]])),
    ):
        pass
