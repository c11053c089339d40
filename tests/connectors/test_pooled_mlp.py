"""Each token is the mean of its own window, projected."""

import pytest
import torch
from torch import nn

from vlmtrain.connectors.pooled_mlp import PooledMLP


def test_a_token_is_the_mean_of_its_window_and_the_class_token_is_dropped() -> None:
    connector = PooledMLP(2, 17, 2, window=2, num_layers=1)
    nn.init.eye_(connector.layers[0].weight)
    nn.init.zeros_(connector.layers[0].bias)
    grid = torch.arange(16.0).reshape(1, 16, 1) * torch.tensor([1.0, -1.0])
    tokens = connector.connect_tiles(torch.cat([torch.full((1, 1, 2), 100.0), grid], dim=1))[0]
    assert tokens.tolist() == [[2.5, -2.5], [4.5, -4.5], [10.5, -10.5], [12.5, -12.5]]


def test_a_window_that_does_not_divide_the_grid_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"window 3 does not divide the 16 x 16 grid .* 257 patches"):
        PooledMLP(12, 257, 20, window=3)
