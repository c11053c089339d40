"""What each way of knowing places promises (T03-T06)."""

import pytest
import torch

from vlmtrain.encoders.vit_positions import Learned1D, Learned2D, RelativeBias, RelativeBias1D, RelativeBias2D

GRID, WIDTH, DEPTH, HEADS = (3, 4), 8, 2, 2
SIZES = (GRID, WIDTH, DEPTH, HEADS)


def test_t04_rows_and_columns_have_tables_of_their_own() -> None:
    positions = Learned2D(*SIZES)
    table = positions.table()[1:].view(3, 4, WIDTH)
    torch.testing.assert_close(table[0, 1] - table[0, 3], table[2, 1] - table[2, 3])
    torch.testing.assert_close(table[0, 1] - table[2, 1], table[0, 3] - table[2, 3])
    assert sum(parameter.numel() for parameter in positions.parameters()) == (3 + 4 + 1) * WIDTH


def places(positions: RelativeBias, grid: tuple[int, int]) -> list[tuple[int, ...]]:
    return [tuple(place) for place in positions.places(grid).tolist()]


@pytest.mark.parametrize("kind", [RelativeBias1D, RelativeBias2D])
def test_t05_bias_depends_on_the_offset_only(kind: type[RelativeBias]) -> None:
    positions = kind(*SIZES)
    bias = positions.attention_bias(1, GRID)
    assert bias is not None and bias.shape == (HEADS, 13, 13)
    by_offset: dict[tuple[int, ...], torch.Tensor] = {}
    where = places(positions, GRID)
    for query, here in enumerate(where):
        for key, there in enumerate(where):
            offset = tuple(b - a for a, b in zip(here, there, strict=True))
            value = bias[:, 1 + query, 1 + key]
            assert torch.equal(by_offset.setdefault(offset, value), value)
    values = torch.stack(list(by_offset.values()))
    assert len(values.unique(dim=0)) == len(by_offset) == (23 if kind is RelativeBias1D else 5 * 7)
    assert len(bias[0, 0, 1:].unique()) == len(bias[0, 1:, 0].unique()) == 1
    tokens = torch.randn(1, 13, WIDTH)
    assert positions.add(tokens, GRID) is tokens


def test_t05_bias_works_on_another_grid_within_range() -> None:
    positions = RelativeBias2D(*SIZES)
    large, small = positions.attention_bias(0, GRID), positions.attention_bias(0, (2, 2))
    assert large is not None and small is not None and small.shape == (HEADS, 5, 5)
    torch.testing.assert_close(small[:, 1:3, 1:3], large[:, 1:3, 1:3])
    with pytest.raises(ValueError, match="5x2"):
        positions.attention_bias(0, (5, 2))


def test_t06_costs_are_as_the_module_says() -> None:
    counts = [
        sum(parameter.numel() for parameter in kind(*SIZES).parameters())
        for kind in (Learned1D, Learned2D, RelativeBias1D, RelativeBias2D)
    ]
    assert counts == [13 * WIDTH, 8 * WIDTH, DEPTH * HEADS * (23 + 3), DEPTH * HEADS * (35 + 3)]


@pytest.mark.parametrize("kind", [Learned1D, Learned2D])
def test_absolute_positions_refuse_another_grid(kind: type[Learned1D]) -> None:
    with pytest.raises(ValueError, match=r"3x4.*2x2"):
        kind(*SIZES).add(torch.zeros(1, 5, WIDTH), (2, 2))
