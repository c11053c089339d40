import pytest
import torch

from vlmtrain.nn.attention_pooling import MeanQueryAttention, ProbeAttention
from vlmtrain.nn.pooling import LastPosition
from vlmtrain.nn.projections import Unchanged


def test_a_probe_reads_what_its_mask_lets_it_read() -> None:
    torch.manual_seed(0)
    pooling = ProbeAttention(16, num_heads=4)
    states, mask = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True, True, True, False, False]])
    pooled = pooling(states, mask)
    torch.testing.assert_close(pooled[1:], pooling(states[1:, :3]))
    torch.testing.assert_close(pooled[:1], pooling(states[:1]))
    assert not torch.allclose(pooled[1:], pooling(states[1:]))


def test_the_order_of_patches_is_known_to_the_mean_query_by_its_positions_alone() -> None:
    torch.manual_seed(0)
    pooling, states = MeanQueryAttention(16, 4, num_heads=4), torch.randn(2, 4, 16)
    turned = states[:, [2, 0, 3, 1]]
    assert not torch.allclose(pooling(states), pooling(turned))
    torch.nn.init.zeros_(pooling.positions)
    torch.testing.assert_close(pooling(states), pooling(turned))


def test_the_last_position_is_that_of_the_end_token_on_either_side_of_padding() -> None:
    states = torch.arange(8.0).view(2, 4, 1)
    mask = torch.tensor([[True, True, False, False], [False, True, True, True]])
    assert LastPosition()(states, mask).flatten().tolist() == [1.0, 7.0]
    assert LastPosition()(states).flatten().tolist() == [3.0, 7.0]


def test_misfits_are_named() -> None:
    with pytest.raises(ValueError, match="num_heads 3"):
        ProbeAttention(16, num_heads=3)
    with pytest.raises(ValueError, match="16 wide, embedding_width 8"):
        Unchanged(16, 8)
