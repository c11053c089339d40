"""Samples side by side."""

import pickle

import pytest
import torch

from vlmtrain.data.collate import Collator, Prepared
from vlmtrain.layout import Layout, Text, Visual


def ten_per_tile(tiles: int) -> int:
    return 10 * tiles


def tiles(count: int, value: int) -> torch.Tensor:
    return torch.full((count, 3, 4, 4), value, dtype=torch.uint8)


def test_images_are_packed_however_many_a_sample_has(layout: Layout) -> None:
    batch = Collator(layout, ten_per_tile, max_tiles=2)(
        [
            Prepared("a", [Visual(), Text("x")], [tiles(1, 1)]),
            Prepared("b", [Text("yy")]),
            Prepared("c", [Visual(2), Visual(), Text("z")], [tiles(2, 2), tiles(1, 3)]),
        ]
    )
    assert batch.visual.pixels[:, 0, 0, 0].tolist() == [1, 2, 2, 3]
    assert batch.visual.tiles_per_item == [1, 2, 1] and batch.visual.items_per_sample == [1, 0, 2]
    assert batch.sample_ids == ["a", "b", "c"] and len(batch) == 3


def test_no_image_at_all(layout: Layout) -> None:
    batch = Collator(layout, ten_per_tile)([Prepared("a", [Text("x")]), Prepared("b", [Text("y")])])
    assert batch.visual.pixels.shape == (0, 3, 1, 1) and batch.visual.items_per_sample == [0, 0]


def test_placeholders_are_asked_once_and_the_model_stays_behind(layout: Layout) -> None:
    asked: list[int] = []

    def count(tiles: int) -> int:
        asked.append(tiles)
        return 10 * tiles

    collator = Collator(layout, count, max_tiles=3)
    assert asked == [1, 2, 3]
    assert [collator.placeholders_per_item(tiles) for tiles in (1, 3)] == [10, 30] and len(asked) == 3
    assert "count" not in str(pickle.dumps(vars(collator)["_placeholders"]))
    with pytest.raises(ValueError, match=r"4 tiles.*1 to 3"):
        collator.placeholders_per_item(4)
