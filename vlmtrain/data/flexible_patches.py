"""Images resized to a grid of patches under a budget, keeping their proportions (T33)."""

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor
from torch.nn import functional

from vlmtrain.data.decode import Decoder, decode_image

Grid = tuple[int, int]  # rows, columns


def pix2struct_grid(height: int, width: int, patch_size: int, max_patches: int) -> Grid:
    """The scale at which the image has `max_patches` patches, rows and columns rounded down (Pix2Struct, section 2).

    An image so narrow that a side rounds to nothing keeps one row or column, and the other side is cut to the budget.
    """
    scale = math.sqrt(max_patches * (patch_size / height) * (patch_size / width))
    rows = max(1, min(int(scale * height / patch_size), max_patches))
    columns = max(1, min(int(scale * width / patch_size), max_patches))
    return rows, columns


def naflex_grid(height: int, width: int, patch_size: int, max_patches: int) -> Grid:
    """The largest scale at which the image, rounded up to whole patches, keeps to the budget (SigLIP 2, section 3.2).

    `patch_size` does not matter: any scale is allowed.
    """
    best, largest = (1, 1), Fraction(0)
    for count in range(1, max_patches + 1):
        for scale in (Fraction(count, height), Fraction(count, width)):  # where a row or a column is just filled
            rows, columns = math.ceil(height * scale), math.ceil(width * scale)
            if rows * columns <= max_patches and scale > largest:
                best, largest = (rows, columns), scale
    return best


class FlexiblePatches:
    """Decodes and resizes to a grid of whole patches, at most `max_patches`.

    `grid` says which: `pix2struct_grid` or `naflex_grid`.  Tiles of different size meet on one canvas in the collator
    (VisualBatch.sizes), and an encoder of flexible patches cuts them up.
    """

    def __init__(
        self,
        patch_size: int,
        max_patches: int,
        grid: Callable[[int, int, int, int], Grid] = pix2struct_grid,
        max_pixels: int = 64_000_000,
        decoder: Decoder = "pillow",
    ) -> None:
        if patch_size < 1 or max_patches < 1:
            raise ValueError(f"patch_size={patch_size} and max_patches={max_patches} must be at least 1")
        self.patch_size = patch_size
        self.max_patches = max_patches
        self.grid = grid
        self.max_pixels = max_pixels
        self.decoder: Decoder = decoder

    def __call__(self, data: bytes, key: int | None = None) -> Tensor:
        """[3, rows * patch_size, columns * patch_size] uint8; nothing is drawn by `key`."""
        side = self.patch_size * math.isqrt(self.max_patches)
        image = decode_image(data, self.max_pixels, side, self.decoder)
        return resize_to_grid(torch.from_numpy(image).permute(2, 0, 1), self.patch_size, self.max_patches, self.grid)


def resize_to_grid(
    pixels: Tensor,
    patch_size: int,
    max_patches: int,
    grid: Callable[[int, int, int, int], Grid] = pix2struct_grid,
) -> Tensor:
    """uint8 [3, h, w] -> uint8 [3, rows * patch_size, columns * patch_size]"""
    rows, columns = grid(pixels.shape[1], pixels.shape[2], patch_size, max_patches)
    size = (rows * patch_size, columns * patch_size)
    if tuple(pixels.shape[1:]) == size:
        return pixels.contiguous()
    return functional.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0].contiguous()
