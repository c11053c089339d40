"""A vision transformer that reads a small CNN instead of raw patches (ViT, section 3.1, "Hybrid architecture").

Strided 3x3 convolutions in place of one large projection learn edges and shapes from far fewer images (Xiao et al.
2021, "Early convolutions help transformers see better", section 4).
"""

import math

from torch import nn

from vlmtrain.encoders.vit import VisionTransformer

NARROWEST = 32  # channels after the first convolution


class HybridVisionTransformer(VisionTransformer):
    """VisionTransformer with a convolutional stem; everything behind the patches is the same.

    `patch_size` must be a power of two: every convolution halves the picture.
    """

    def make_patch_projection(self, patch_size: int, width: int) -> nn.Module:
        halvings = round(math.log2(patch_size))
        if 2**halvings != patch_size:
            raise ValueError(f"patch_size {patch_size} must be a power of two for a convolutional stem")
        layers: list[nn.Module] = []
        channels = 3
        for halving in range(halvings):
            wider = min(width, NARROWEST * 2**halving)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.GroupNorm(1, wider), nn.GELU()]
            channels = wider
        return nn.Sequential(*layers, nn.Conv2d(channels, width, 1))

    def initialise(self) -> None:
        super().initialise()
        for module in self.patch_projection.modules():  # the base's two hundredths would fade away over several layers
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
