"""Tiles of fewer patches and items of fewer tiles, for connectors that leave padding out."""

import torch
from einops import rearrange
from torch import Tensor


def blank_padding(patches: Tensor, patch_mask: Tensor | None) -> Tensor:
    """[N, P, W] with zeros where `patch_mask` [N, P] is False: not even a NaN in the padding gets any further."""
    return patches if patch_mask is None else patches.masked_fill(~patch_mask.unsqueeze(-1), 0.0)


def join_tiles(patches: Tensor, patch_mask: Tensor | None, tiles_per_item: list[int]) -> tuple[Tensor, Tensor | None]:
    """The patches of an item in one row: [N, P, W] -> [I, most tiles * P, W], and a mask where rows differ in length.

    Args:
        patches: [N, P, W] of all tiles.
        patch_mask: [N, P], False on padding; None: all are real.
        tiles_per_item: I numbers that sum to N.
    """
    num_items, most = len(tiles_per_item), max(tiles_per_item, default=1)
    is_ragged = min(tiles_per_item, default=1) < most
    if not is_ragged:
        mask = None if patch_mask is None else patch_mask.reshape(num_items, most * patch_mask.shape[1])
        return rearrange(patches, "(i f) p w -> i (f p) w", f=most), mask
    real = patches.new_ones(patches.shape[:2], dtype=torch.bool) if patch_mask is None else patch_mask
    places = [item * most + tile for item, tiles in enumerate(tiles_per_item) for tile in range(tiles)]
    index = torch.tensor(places, device=patches.device)
    rows = patches.new_zeros(num_items * most, *patches.shape[1:]).index_copy(0, index, patches)
    mask = real.new_zeros(num_items * most, real.shape[1]).index_copy(0, index, real)
    return rearrange(rows, "(i f) p w -> i (f p) w", f=most), rearrange(mask, "(i f) p -> i (f p)", f=most)
