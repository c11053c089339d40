"""Items of different lengths in rows of one length, and nothing of the padding real."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.connectors.padding import join_tiles


@given(tiles_per_item=st.lists(st.integers(1, 4), max_size=5), is_masked=st.booleans())
def test_the_real_patches_of_a_row_are_those_of_its_item_in_order(tiles_per_item: list[int], is_masked: bool) -> None:
    total = sum(tiles_per_item)
    patches = 1 + torch.arange(float(total * 3)).reshape(total, 3, 1)
    patch_mask = torch.arange(total * 3).reshape(total, 3) % 2 == 0 if is_masked else None
    rows, mask = join_tiles(patches, patch_mask, tiles_per_item)
    assert rows.shape == (len(tiles_per_item), 3 * max(tiles_per_item, default=1), 1)
    real = torch.ones(total, 3, dtype=torch.bool) if patch_mask is None else patch_mask
    seen = torch.ones(rows.shape[:2], dtype=torch.bool) if mask is None else mask
    kept = patches.split(tiles_per_item), real.split(tiles_per_item), rows, seen
    for item_patches, item_real, row, row_seen in zip(*kept, strict=True):
        assert torch.equal(row[row_seen], item_patches[item_real])
