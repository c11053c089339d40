import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.nn.pooling import ClassToken, Mean


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_padding_has_no_part_in_a_mean(lengths: list[int]) -> None:
    states = torch.randn(len(lengths), 7, 3, generator=torch.Generator().manual_seed(sum(lengths)))
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    alone = torch.stack([row[:length].mean(0) for row, length in zip(states, lengths, strict=True)])
    torch.testing.assert_close(Mean()(states, mask), alone)
    torch.testing.assert_close(Mean()(states.masked_fill(~mask[..., None], 1e4), mask), alone)


def test_without_a_mask_every_position_counts() -> None:
    states = torch.randn(2, 5, 3)
    torch.testing.assert_close(Mean()(states), states.mean(1))


def test_the_class_token_is_the_first_position() -> None:
    states = torch.randn(2, 5, 3)
    assert torch.equal(ClassToken()(states), states[:, 0])
