"""Encoders that take tiles of any proportions as a sequence of patches (Pix2Struct, section 2; NaViT; SigLIP 2)."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.tile_sizes import Size, TileSizes


@dataclass(frozen=True)
class CutPatches:
    """Tiles as rows of patches in reading order, the padding behind."""

    values: Tensor  # [N, P, patch_size * patch_size * 3], colour innermost; zeros on padding
    rows: Tensor  # [N, P], counted from 0; 0 on padding
    columns: Tensor  # [N, P], likewise
    mask: Tensor  # [N, P], False on padding
    grids: list[Size]  # N times rows, columns


def cut_patches(pixels: Tensor, sizes: list[Size], patch_size: int) -> CutPatches:
    """Canvases [N, 3, H, W] with a tile of `sizes[n]` in the corner of each -> its patches, and no others."""
    odd = sorted({size for size in sizes if size[0] % patch_size or size[1] % patch_size})
    if odd:
        raise ValueError(
            f"tiles of {odd[:3]} pixels do not divide into patches of {patch_size}; "
            "resize as `tile_sizes` says, which keeps to multiples."
        )
    grids = [(height // patch_size, width // patch_size) for height, width in sizes]
    device = pixels.device
    grid = torch.tensor(grids, device=device).unsqueeze(-1)  # [N, 2, 1]
    places = torch.arange(max(rows * columns for rows, columns in grids), device=device)
    mask = places < grid[:, 0] * grid[:, 1]  # [N, P]
    rows = (places // grid[:, 1]).masked_fill(~mask, 0)
    columns = (places % grid[:, 1]).masked_fill(~mask, 0)
    height, width = (max(extents) * patch_size for extents in zip(*grids, strict=True))
    every = rearrange(pixels[..., :height, :width], "n c (r a) (s b) -> n (r s) (a b c)", a=patch_size, b=patch_size)
    index = (rows * (width // patch_size) + columns).unsqueeze(-1).expand(-1, -1, every.shape[-1])
    return CutPatches(every.gather(1, index).masked_fill(~mask.unsqueeze(-1), 0), rows, columns, mask, grids)


class FlexibleEncoder(VisionEncoder):
    """Every tile becomes as many patches as it has, up to `patches_per_tile`; the rest is masked.

    A subclass also sets `patch_size`, implements `encode_patches`, and says in `tile_sizes` what images should become.
    `image_size` is the side of the largest square.
    """

    patch_size: int

    @abstractmethod
    def tile_sizes(self) -> TileSizes:
        """Whole patches, at most `patches_per_tile`."""

    @abstractmethod
    def encode_patches(self, cut: CutPatches) -> Tensor:
        """Normalised patches -> [N, P, W]; what stands on padding does not matter, but must be finite."""

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        sizes = [(pixels.shape[2], pixels.shape[3])] * len(pixels)
        return self.encode_patches(cut_patches(pixels, sizes, self.patch_size))

    def forward(self, visual: VisualBatch) -> VisualFeatures:
        if not len(visual.pixels):
            return self.see_nothing(visual)
        with in_own_precision(visual.pixels.device, self.dtype):
            cut = cut_patches(self.normalise(visual.pixels), visual.tile_sizes, self.patch_size)
            self.check(cut)
            patches = self.encode_patches(cut)
        is_full = all(rows * columns == self.patches_per_tile for rows, columns in cut.grids)
        mask = None if is_full else cut.mask  # a fact of the sizes: no device is asked
        return VisualFeatures(patches, visual.tiles_per_item, visual.items_per_sample, mask)

    def check(self, cut: CutPatches) -> None:
        """ValueError where a tile has more patches than this encoder takes."""
        largest = max(cut.grids, key=lambda grid: grid[0] * grid[1])
        if largest[0] * largest[1] > self.patches_per_tile:
            raise ValueError(
                f"a tile of {largest[0]}x{largest[1]} patches is more than the {self.patches_per_tile} that "
                f"{type(self).__name__} takes; resize as its `tile_sizes` says."
            )
