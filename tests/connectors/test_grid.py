"""T40: the grid that connectors see is the one that encoders flattened."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.connectors.grid import divided_side, grid_side, space_to_depth, to_grid
from vlmtrain.encoders.vit import VisionTransformer


@given(side=st.integers(1, 8), has_class_token=st.booleans())
def test_t40_a_grid_flattened_row_by_row_comes_back(side: int, has_class_token: bool) -> None:
    grid = torch.arange(2.0 * 3 * side * side).reshape(2, 3, side, side)  # [N, W, h, w], as a convolution makes it
    patches = grid.flatten(2).mT  # [N, h * w, W]
    if has_class_token:
        patches = torch.cat([torch.full((2, 1, 3), -1.0), patches], dim=1)
    assert grid_side(patches.shape[1]) == side
    assert torch.equal(to_grid(patches), grid.permute(0, 2, 3, 1))


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (2, 1)])
def test_t40_a_square_of_pixels_is_at_its_place_in_the_grid(row: int, column: int) -> None:
    encoder = VisionTransformer(image_size=16, patch_size=4, width=8, depth=1, num_heads=2)
    pixels = torch.zeros(1, 3, 16, 16)
    before, _ = encoder.embed_patches(pixels)
    pixels[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1.0
    after, _ = encoder.embed_patches(pixels)
    changed = to_grid(after - before).abs().sum(-1)[0].nonzero().tolist()
    assert changed == [[row, column]]


def test_space_to_depth_keeps_every_number() -> None:
    grid = torch.arange(2.0 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    squares = space_to_depth(grid, 2)
    assert squares.shape == (2, 2, 2, 12)
    assert torch.equal(squares[:, 1, 0], grid[:, 2:, :2].flatten(1))


@pytest.mark.parametrize("patches", [0, 3, 18, 24])
def test_what_is_no_square_is_refused_with_its_number_and_the_way_out(patches: int) -> None:
    with pytest.raises(ValueError, match=f"{patches} patches .* model/connector=mlp or model/connector=perceiver"):
        grid_side(patches)


@pytest.mark.parametrize("factor", [0, -1, 3, 5])
def test_a_factor_has_to_divide_the_side(factor: int) -> None:
    with pytest.raises(ValueError, match=rf"factor {factor} does not divide the 4 x 4 grid .* 17 .*1, 2, 4,"):
        divided_side(17, "factor", factor)
