"""The seam to an image encoder."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.nn.autocast import in_own_precision


class VisionEncoder(nn.Module, ABC):
    """Pixels -> patches, one tile at a time.

    A subclass sets `width` (W), `patches_per_tile` (P, class token included where it is kept), `image_size` and
    `source` (where its weights come from), calls `super().__init__(mean, std)`, and implements `encode_tiles`.
    """

    width: int  # W
    patches_per_tile: int  # P
    image_size: int  # side of the square tile in pixels
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

    def forward(self, visual: VisualBatch) -> VisualFeatures:
        dtype = next((parameter.dtype for parameter in self.parameters()), torch.float32)
        pixels = ((visual.pixels.float() - self.pixel_mean) / self.pixel_std).to(dtype)
        with in_own_precision(pixels.device, dtype):
            patches = self.encode_tiles(pixels)
        return VisualFeatures(patches, visual.tiles_per_item, visual.items_per_sample)
