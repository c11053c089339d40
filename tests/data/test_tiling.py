"""Images cut into tiles: the best grid, nothing lost, nothing left over."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.config.faults import ConfigError
from vlmtrain.data.collate import Collator
from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.loading import prepare
from vlmtrain.data.record import Record
from vlmtrain.data.tiling import Tiling, choose_grid
from vlmtrain.data.transforms import ImageTransform, resized
from vlmtrain.layout import Layout, Visual
from vlmtrain.nn.tile_sizes import Squares


def encoded(width: int, height: int) -> bytes:
    pixels = np.random.default_rng(width * 7919 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, format="PNG")
    return held.getvalue()


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 10), st.sampled_from([4, 16]))
@example(1, 4000, 5, 16)
@example(4000, 1, 5, 16)
@settings(max_examples=60, deadline=None)
def test_tiles_fill_the_grid_and_the_whole_image_comes_last(width: int, height: int, most: int, side: int) -> None:
    data = encoded(width, height)
    tiles = Tiling(Squares(side), most)(data)
    assert tiles.dtype == torch.uint8 and tiles.shape[1:] == (3, side, side) and 1 <= len(tiles) <= most
    assert torch.equal(tiles[-1], ImageTransform(Squares(side))(data)), (
        "the thumbnail is the image as it comes without tiles"
    )
    rows, columns = choose_grid(width, height, side, most - 1)
    assert len(tiles) == (rows * columns + 1 if rows * columns > 1 else 1)
    if rows * columns > 1:
        grid = tiles[:-1].reshape(rows, columns, 3, side, side).permute(2, 0, 3, 1, 4)
        pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(data)))).permute(2, 0, 1)
        assert torch.equal(grid.reshape(3, rows * side, columns * side), resized(pixels, rows * side, columns * side))


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 64), st.integers(0, 12))
def test_no_grid_that_is_allowed_fits_better(width: int, height: int, side: int, most: int) -> None:
    rows, columns = choose_grid(width, height, side, most)
    assert rows * columns <= max(1, most)
    ours = abs(math.log(columns / rows) - math.log(width / height))
    for other_rows in range(1, most + 1):
        for other_columns in range(1, most // other_rows + 1):
            count = other_rows * other_columns
            if count * side * side <= 2 * width * height:
                other = abs(math.log(other_columns / other_rows) - math.log(width / height))
                assert ours < other + 1e-8
                if abs(ours - other) < 1e-10:
                    assert count <= rows * columns


@pytest.mark.parametrize(
    ("width", "height", "grid"),
    [(1000, 1000, (2, 2)), (1000, 500, (1, 2)), (500, 1500, (3, 1)), (1, 4000, (4, 1)), (16, 16, (1, 1))],
)
def test_examples(width: int, height: int, grid: tuple[int, int]) -> None:
    assert choose_grid(width, height, 16, 4) == grid


def test_tiles_reach_the_collator_as_one_item(layout: Layout) -> None:
    transform = Tiling(Squares(8), 5)
    records = [Record(str(width), [encoded(width, 64)], ["x"]) for width in (64, 128, 4)]
    samples = [prepare(record, Captioning().parts(record, 0), transform, 0) for record in records]
    batch = Collator(layout, lambda tiles: 3 * tiles, transform.max_tiles)(samples)
    assert batch.visual.tiles_per_item == [5, 3, 5] and len(batch.visual.pixels) == 13
    assert [sample.parts[0] for sample in samples] == [Visual(5), Visual(3), Visual(5)]


def test_a_stage_takes_another_transform_and_its_arguments_are_checked() -> None:
    values = ["experiment=blip2_opt", "stages.language.transform._target_=vlmtrain.data.tiling.Tiling"]
    values += ["stages.language.transform._partial_=true"]
    check(compose([*values, "stages.language.transform.max_tiles=3"]))
    with pytest.raises(ConfigError, match="max_tile"):
        check(compose([*values, "stages.language.transform.max_tile=3"]))


@pytest.mark.parametrize("wrong", [{"max_tiles": 0}, {"max_pixels": 0}])
def test_wrong_arguments_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}=0"):
        Tiling(**{"tile_sizes": Squares(8), **wrong})
