"""The mapping network of Pic2Word."""

import pytest
import torch
from torch import nn

from vlmtrain.nn.word_mapper import WordMapper


def test_it_is_an_mlp_with_dropout_before_each_relu_and_none_behind_the_last_layer() -> None:
    torch.manual_seed(0)
    mapper = WordMapper(6, 10, hidden_width=8).eval()
    first, second, last = (layer for layer in mapper if isinstance(layer, nn.Linear))
    vectors = torch.randn(3, 6)
    expected = last(second(first(vectors).relu()).relu())
    torch.testing.assert_close(mapper(vectors), expected)
    assert [type(layer) for layer in mapper] == 2 * [nn.Linear, nn.Dropout, nn.ReLU] + [nn.Linear]
    assert {layer.p for layer in mapper if isinstance(layer, nn.Dropout)} == {0.1}
    mapper.train()
    assert not torch.equal(mapper(vectors), expected)


def test_without_hidden_layers_it_is_a_matrix_and_fewer_are_refused() -> None:
    assert [tuple(parameter.shape) for parameter in WordMapper(6, 10, depth=0).parameters()] == [(10, 6), (10,)]
    with pytest.raises(ValueError, match="depth -1"):
        WordMapper(6, 10, depth=-1)
