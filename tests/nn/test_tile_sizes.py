"""What size an image gets; T33: a grid of patches under a budget that keeps its proportions."""

import io
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmtrain.data.collate import Collator, Prepared
from vlmtrain.data.tiling import Tiling
from vlmtrain.data.transforms import ImageTransform
from vlmtrain.layout import Text, Visual
from vlmtrain.nn.tile_sizes import ShorterSide, Squares, WholePatches, naflex_grid, pix2struct_grid

SIDES, BUDGETS = st.integers(1, 3000), st.integers(1, 300)


@settings(deadline=None)
@given(SIDES, SIDES, BUDGETS)
def test_t33_the_grid_keeps_to_the_budget_and_to_the_proportions(height: int, width: int, budget: int) -> None:
    """Rows and columns are those of the exact scaling to the budget, rounded down, unless it is too narrow."""
    rows, columns = pix2struct_grid(height, width, 16, budget)
    assert 1 <= rows * columns <= budget
    exact_rows, exact_columns = (budget * height / width) ** 0.5, (budget * width / height) ** 0.5
    for count, exact in ((rows, exact_rows), (columns, exact_columns)):
        if exact < 1:
            assert count == 1
        else:
            assert count <= exact + 1e-6 and (count + 1 > exact - 1e-6 or count == budget)


@settings(deadline=None)
@given(SIDES, SIDES, BUDGETS)
def test_t33_the_grid_is_that_of_transformers(height: int, width: int, budget: int) -> None:
    from transformers.image_utils import SizeDict
    from transformers.models.pix2struct.image_processing_pix2struct import Pix2StructImageProcessor

    seen: list[SizeDict] = []

    class Watching(Pix2StructImageProcessor):
        def resize(self, image: torch.Tensor, size: SizeDict, **options: object) -> torch.Tensor:
            seen.append(size)
            return torch.zeros(*image.shape[:2], size.height, size.width)

    Watching().extract_flattened_patches(torch.zeros(1, 1, height, width), budget, SizeDict(height=2, width=2))
    rows, columns = pix2struct_grid(height, width, 2, budget)
    assert (seen[0].height, seen[0].width) == (2 * rows, 2 * columns)


@settings(
    derandomize=True, max_examples=300, deadline=None
)  # theirs searches to 1e-5 of a scale, so that a tie may fall either way
@given(st.integers(8, 1500), st.integers(8, 1500), BUDGETS)
def test_naflex_grids_are_those_of_transformers(height: int, width: int, budget: int) -> None:
    from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

    rows, columns = naflex_grid(height, width, 16, budget)
    assert 1 <= rows * columns <= budget
    assert (16 * rows, 16 * columns) == get_image_size_for_max_num_patches(height, width, 16, budget)


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 60)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("height", "width"), [(1, 4000), (4000, 1), (300, 200), (64, 64)])
def test_images_become_whole_patches(height: int, width: int) -> None:
    pixels = ImageTransform(WholePatches(16, 24))(png(height, width))
    rows, columns = pix2struct_grid(height, width, 16, 24)
    assert pixels.shape == (3, 16 * rows, 16 * columns) and pixels.dtype == torch.uint8
    assert (pixels == torch.tensor([200, 30, 60]).view(3, 1, 1)).all()


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_an_image_that_fits_stays_as_it_is(resize: Literal["squash", "crop", "pad"]) -> None:
    file, pixels = io.BytesIO(), torch.randint(0, 256, (64, 96, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    made = ImageTransform(WholePatches(16, 24), resize=resize)(file.getvalue())
    assert torch.equal(made, pixels.permute(2, 0, 1))


def test_squares_are_squares() -> None:
    assert Squares(5)(1, 4000) == (5, 5) and WholePatches(16, 24).side == 64
    with pytest.raises(ValueError, match="squares of 0 pixels"):
        Squares(0)
    with pytest.raises(ValueError, match=r"tiles are squares.*WholePatches"):
        Tiling(WholePatches(16, 24))


def test_the_collator_puts_tiles_of_different_size_on_one_canvas() -> None:
    class NoText:
        def write(self, samples: list[object], placeholders: object) -> None:
            return None

    collator = Collator(NoText(), lambda tiles: 1)  # type: ignore[arg-type]
    tiles = [torch.full((1, 3, *size), 9, dtype=torch.uint8) for size in ((32, 16), (16, 48))]
    samples = [Prepared("a", [Visual(), Text("x")], tiles[:1]), Prepared("b", [Visual(), Text("x")], tiles[1:])]
    visual = collator(samples).visual
    assert visual.pixels.shape == (2, 3, 32, 48) and visual.sizes == [(32, 16), (16, 48)]
    assert visual.pixels.sum() == 9 * 3 * (32 * 16 + 16 * 48)
    assert collator(samples[:1]).visual.sizes is None


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="max_patches=0"):
        WholePatches(16, 0)


@pytest.mark.parametrize(
    ("image", "tile"),
    [
        ((480, 640), (384, 512)),  # COCO's landscape
        ((640, 480), (512, 384)),
        ((100, 100), (384, 384)),
        ((300, 1000), (192, 640)),  # the longer side decides
        ((333, 500), (384, 576)),
    ],
)
def test_the_shorter_side_is_resized_as_vilt_does(image, tile):
    from transformers.models.vilt.image_processing_pil_vilt import get_resize_output_image_size

    sizes = ShorterSide(patch_size=32, shorter=384, longest=640)
    assert sizes(*image) == tile and sizes.side == 384
    assert get_resize_output_image_size(np.zeros((*image, 3)), 384, 640, 32, "channels_last") == tile


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_tiles_of_the_shorter_side_are_whole_patches_within_the_bounds(height, width):
    tile = ShorterSide(patch_size=32, shorter=384, longest=640)(height, width)
    assert all(side % 32 == 0 and 32 <= side <= 640 for side in tile) and min(tile) <= 384
    assert (tile[0] >= tile[1]) if height >= width else (tile[0] <= tile[1])


def test_bounds_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="shorter=384 must be at least a patch, and longest=300"):
        ShorterSide(32, 384, 300)
