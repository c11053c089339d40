"""Changing the hidden states that a layer receives."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.nn.hidden_states import change_before


class Layer(nn.Module):
    def forward(self, hidden_states: Tensor, scale: float = 1.0) -> Tensor:
        return hidden_states * scale


class Adder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.ones(1))

    def add(self, hidden: Tensor) -> Tensor:
        return hidden + self.amount


def test_positional_and_keyword_alike() -> None:
    layer, adder, x = Layer(), Adder(), torch.zeros(2)
    handle = change_before(layer, adder.add)
    for made in (layer(x), layer(x, 1.0), layer(hidden_states=x), layer(scale=1.0, hidden_states=x)):
        assert made.tolist() == [1.0, 1.0]
    assert layer(x, scale=2.0).tolist() == [2.0, 2.0]
    assert not layer.state_dict()
    handle.remove()
    assert layer(x).tolist() == [0.0, 0.0]


def test_a_layer_without_hidden_states_is_named() -> None:
    layer = Layer()
    change_before(layer, Adder().add)
    with pytest.raises(AssertionError, match="Layer"):
        layer(scale=2.0)


def test_a_copy_calls_its_own_copy() -> None:
    both = nn.ModuleDict({"layer": Layer(), "adder": Adder()})
    change_before(both["layer"], both["adder"].add)
    copied = deepcopy(both)
    with torch.no_grad():
        both["adder"].amount.fill_(5.0)
    assert copied["layer"](torch.zeros(1)).item() == 1.0
    assert both["layer"](torch.zeros(1)).item() == 5.0
