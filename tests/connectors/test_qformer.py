"""A Q-Former as connector: T24, and patches that only pad a tile."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vlmtrain.batch import VisualFeatures
from vlmtrain.connectors.qformer import QFormerConnector
from vlmtrain.nn.qformer import QFormer

WIDTH, QUERIES, LANGUAGE = 12, 3, 8


def make() -> QFormerConnector:
    torch.manual_seed(0)
    made = QFormerConnector(WIDTH, 9, LANGUAGE, partial(QFormer, width=16, num_queries=QUERIES, depth=3, num_heads=2))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made.eval()


def patches(count: int, tiles: int = 1) -> Tensor:
    return torch.randn(tiles, count, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("count", [1, 50, 257, 577])
def test_t24_as_many_tokens_as_queries_whatever_the_number_of_patches(count: int) -> None:
    made = make()
    tokens = made(VisualFeatures(patches(count), [1], [1])).embeddings
    assert tokens.shape == (QUERIES, LANGUAGE)
    tokens.square().sum().backward()
    assert made.qformer.queries.grad is not None and made.qformer.queries.grad.abs().sum() > 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 3))
def test_patches_that_only_pad_change_nothing(lengths: list[int], more: int) -> None:
    made, whole = make(), patches(max(lengths) + more, len(lengths))
    mask = torch.arange(max(lengths) + more) < torch.tensor(lengths).unsqueeze(1)
    noise = torch.where(mask.unsqueeze(-1), whole, 100.0).requires_grad_()
    tiles = [1] * len(lengths)
    got = made(VisualFeatures(noise, tiles, [len(lengths)], mask)).embeddings.unflatten(0, (-1, QUERIES))
    for row, length in enumerate(lengths):
        alone = made(VisualFeatures(whole[row : row + 1, :length], [1], [1])).embeddings
        torch.testing.assert_close(got[row], alone, atol=1e-6, rtol=1e-5)
    got.square().sum().backward()
    assert noise.grad is not None and (noise.grad[~mask] == 0).all() and (noise.grad[mask] != 0).any()


def test_a_full_mask_is_no_mask() -> None:
    made, whole = make(), patches(9, 2)
    masked = made(VisualFeatures(whole, [1, 1], [2], torch.ones(2, 9, dtype=torch.bool))).embeddings
    torch.testing.assert_close(masked, made(VisualFeatures(whole, [1, 1], [2])).embeddings, atol=1e-6, rtol=0)
