"""A vision transformer that reads a small CNN instead of raw patches (ViT, section 3.1, "Hybrid architecture").

Strided 3x3 convolutions in place of one large projection learn edges and shapes from far fewer images (Xiao et al.
2021, "Early convolutions help transformers see better", section 4).
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.encoders.vit import VisionTransformer

NARROWEST = 32  # channels after the first convolution
GROUPS = 8  # of every normalisation; independent of the batch
RESIDUALS = 2  # per resolution


class ResidualConvolution(nn.Module):
    """x + convolution(gelu(norm(x))), as a pre-activation ResNet has it (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W], unchanged in shape"""
        return x + self.convolution(F.gelu(self.norm(x)))


class HybridVisionTransformer(VisionTransformer):
    """VisionTransformer with a convolutional stem; everything behind the patches is the same.

    `patch_size` must be a power of two: every step of the stem halves the picture and doubles the channels.
    """

    def make_patch_projection(self, patch_size: int, width: int) -> nn.Module:
        halvings = round(math.log2(patch_size))
        if halvings < 1 or 2**halvings != patch_size or width % GROUPS:
            raise ValueError(
                f"patch_size {patch_size} must be a power of two from 2 on, and width {width} a multiple of {GROUPS}, "
                "for a convolutional stem"
            )
        layers: list[nn.Module] = []
        channels = 3
        for halving in range(halvings):
            wider = min(width, NARROWEST * 2**halving)
            layers += _activation(channels) if halving else []
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1)]
            layers += [ResidualConvolution(wider) for _ in range(RESIDUALS)]
            channels = wider
        return nn.Sequential(*layers, *_activation(channels), nn.Conv2d(channels, width, 1))

    def initialise(self) -> None:
        super().initialise()
        for module in self.patch_projection.modules():  # a transformer's start would fade away over several layers
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def _activation(channels: int) -> list[nn.Module]:
    return [nn.GroupNorm(GROUPS, channels), nn.GELU()]
