"""The seam to an image encoder."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.nn.autocast import in_own_precision
from vlmtrain.nn.residual_blocks import residual_blocks
from vlmtrain.nn.tile_sizes import Squares, TileSizes


class VisionEncoder(nn.Module, ABC):
    """Pixels -> patches, one tile at a time.

    A subclass sets `width` (W), `patches_per_tile` (P, class token included where it is kept), `image_size` and
    `source` (where its weights come from), calls `super().__init__(mean, std)`, and implements `encode_tiles`.
    """

    width: int  # W
    patches_per_tile: int  # P
    image_size: int  # side of the square tile in pixels
    keep_class_token: bool = False  # whether patch 0 is a class token
    source: str = "random"  # name or folder of the pretrained weights
    pixel_mean: Tensor  # [1, 3, 1, 1], in units of 0..255
    pixel_std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", 255.0 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", 255.0 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @abstractmethod
    def encode_tiles(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [N, 3, H, W] -> patches [N, P, W]."""

    def first_block(self) -> nn.Module:
        """The first of the layers that read tokens [N, T, W], for those who change what is read."""
        return residual_blocks(self)[0]

    def tile_sizes(self) -> TileSizes:
        """What size an image should get before it comes here."""
        return Squares(self.image_size)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, which is what pixels become."""
        return next((parameter.dtype for parameter in self.parameters()), torch.float32)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> what `encode_tiles` takes."""
        return ((pixels.float() - self.pixel_mean) / self.pixel_std).to(self.dtype)

    def require_one_size(self, visual: VisualBatch) -> None:
        """ValueError where tiles do not fill their canvas."""
        height, width = visual.pixels.shape[-2:]
        if any(size != (height, width) for size in visual.tile_sizes):
            raise ValueError(
                f"{type(self).__name__} takes tiles of one size, but this batch holds "
                f"{sorted(set(visual.tile_sizes))[:4]} on a canvas of {height}x{width}; resize images to squares of "
                f"{self.image_size}, or choose an encoder of flexible patches: model/encoder=siglip2_naflex."
            )

    def forward(self, visual: VisualBatch) -> VisualFeatures:
        if not len(visual.pixels):
            return self.see_nothing(visual)
        self.require_one_size(visual)
        with in_own_precision(visual.pixels.device, self.dtype):
            patches = self.encode_tiles(self.normalise(visual.pixels))
        return VisualFeatures(patches, visual.tiles_per_item, visual.items_per_sample)

    def see_nothing(self, visual: VisualBatch) -> VisualFeatures:
        """No image in the batch: one black tile passes and is left out, so that every rank runs the same modules,
        each as often as the others: ZeRO-3 counts, and so this is no second call of the encoder."""
        black = visual.pixels.new_zeros(1, 3, self.image_size, self.image_size)
        patches = self.forward(VisualBatch(black, [1], [1])).patches[:0]
        return VisualFeatures(patches, visual.tiles_per_item, visual.items_per_sample)
