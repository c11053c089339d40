"""How far the heads of a vision transformer look (ViT, Dosovitskiy et al. 2021, section 4.5 and figure 7)."""

import torch
from torch import Tensor

Grid = tuple[int, int]  # rows, columns of patches


def mean_attention_distance(maps: Tensor, grid: Grid, patch_size: int, prefix_tokens: int = 1) -> Tensor:
    """Mean distance in pixels between a patch and what it attends to, per layer and head.

    The class token (and whatever else stands before the patches) has no place in the image and is excluded: as a query
    it is left out, and of what a patch attends to only the shares on patches count, scaled to sum to 1.

    Args:
        maps: who attends to whom, rows sum to 1: [layers, N, heads, T, T], as VisionTransformer.attention_maps gives.
        grid: rows and columns of the patches, which stand in reading order.
        patch_size: side of a patch in pixels.
        prefix_tokens: tokens before the first patch.

    Returns:
        [layers, heads], averaged over the N images and all patches as queries.
    """
    between = maps[..., prefix_tokens:, prefix_tokens:]
    if between.shape[-1] != grid[0] * grid[1]:
        raise ValueError(
            f"maps of {maps.shape[-1]} tokens, {prefix_tokens} of them before the patches, are not those of a "
            f"{grid[0]}x{grid[1]} grid; give the grid and prefix_tokens of the encoder."
        )
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).to(maps)
    distances = patch_size * torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
    shares = between / between.sum(dim=-1, keepdim=True)
    return (shares * distances).sum(dim=-1).mean(dim=(1, 3))
