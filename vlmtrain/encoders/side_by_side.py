"""Several encoders look at the same tile (Prismatic VLMs, Karamcheti et al. 2024, section 4.2: DINOv2 and SigLIP)."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class SideBySide(VisionEncoder):
    """Patch p is what every encoder says of patch p, one after the other along the width.

    Tiles come at the size of the encoder that wants the largest ones and are resized for the others; each normalises
    pixels by its own mean and deviation.  All must cut a tile into the same grid.
    """

    def __init__(self, encoders: list[VisionEncoder]) -> None:
        super().__init__(ZERO, ONE)  # not used: pixels reach the encoders as they are
        if len(encoders) < 2:
            raise ValueError(f"side by side stand at least two encoders, got {len(encoders)}.")
        if len({each.patches_per_tile for each in encoders}) > 1:
            listed = ", ".join(
                f"{type(each).__name__} {each.source} makes {each.patches_per_tile}" for each in encoders
            )
            raise ValueError(
                f"encoders side by side must make equally many patches of a tile, but {listed}: "
                "choose image_size and keep_class_token so that the grids agree."
            )
        self.encoders = nn.ModuleList(encoders)
        self.width = sum(each.width for each in encoders)
        self.patches_per_tile = encoders[0].patches_per_tile
        self.image_size = max(each.image_size for each in encoders)
        self.source = " + ".join(each.source for each in encoders)

    def stack(self) -> list[VisionEncoder]:
        """The encoders in order."""
        return [each for each in self.encoders if isinstance(each, VisionEncoder)]

    def forward(self, visual: VisualBatch) -> VisualFeatures:
        if not len(visual.pixels):
            return self.see_nothing(visual)
        self.require_one_size(visual)
        seen = [
            each(replace(visual, pixels=resized(visual.pixels, each.image_size), sizes=None)) for each in self.stack()
        ]
        if any(features.patch_mask is not None for features in seen):
            raise ValueError("encoders side by side take tiles of one size; none may pad patches.")
        return replace(seen[0], patches=torch.cat([features.patches for features in seen], dim=-1))

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..255, which is what this encoder's own normalisation leaves them at."""
        uint8 = pixels.round().clamp(0, 255).to(torch.uint8)
        return self(VisualBatch(uint8, [1] * len(pixels), [1] * len(pixels))).patches


def resized(pixels: Tensor, side: int) -> Tensor:
    """uint8 [N, 3, H, W] -> [N, 3, side, side] uint8, as vlmtrain.data.transforms resizes."""
    if not len(pixels) or pixels.shape[-2:] == (side, side):
        return pixels
    larger = F.interpolate(pixels.float(), (side, side), mode="bicubic", antialias=True)  # CUDA has no such on bytes
    return larger.round().clamp(0, 255).to(torch.uint8)
