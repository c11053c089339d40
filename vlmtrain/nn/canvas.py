"""Tiles of different sizes in one tensor."""

from collections.abc import Sequence

import torch
from torch import Tensor

Size = tuple[int, int]  # height, width


def share_canvas(blocks: Sequence[Tensor], sizes: Sequence[Size]) -> tuple[Tensor, list[Size] | None]:
    """Blocks of tiles [n, 3, h, w] -> all tiles on one canvas [N, 3, H, W], zeros below and to the right of each.

    `sizes` are those of the N tiles; they come back, or None where every tile fills the canvas.
    """
    height = max((block.shape[-2] for block in blocks if len(block)), default=1)
    width = max((block.shape[-1] for block in blocks if len(block)), default=1)
    if not sizes:
        return next(iter(blocks), torch.empty(0, 3, 1, 1, dtype=torch.uint8)), None
    padded = [
        torch.nn.functional.pad(block, (0, width - block.shape[-1], 0, height - block.shape[-2]))
        for block in blocks
        if len(block)
    ]
    return torch.cat(padded), None if all(size == (height, width) for size in sizes) else list(sizes)
