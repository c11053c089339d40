"""CLIP's ResNet: a small stem of three convolutions, and averages wherever others take strides (CLIP, section 2.4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vlmtrain.encoders.base import VisionEncoder

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
EXPANSION = 4  # of the channels, at the end of a bottleneck
REDUCTION = 32  # pixels per patch and side


class BatchNorm(nn.BatchNorm2d):
    """Batch norm whose running statistics count a batch once, though the survey of a step looks at it before."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W], unchanged in shape"""
        if self.training and not torch.is_grad_enabled():
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return super().forward(x)


class Bottleneck(nn.Module):
    """1x1, 3x3, average, 1x1, and a shortcut that is averaged alike (He et al. 2019, "Bag of tricks", section 4.2)."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        outer = EXPANSION * inner
        self.reduce = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), BatchNorm(inner), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1, bias=False), BatchNorm(inner), nn.ReLU())
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.expand = nn.Sequential(nn.Conv2d(inner, outer, 1, bias=False), BatchNorm(outer))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != outer:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(channels, outer, 1, bias=False), BatchNorm(outer)
            )
        nn.init.zeros_(self.expand[1].weight)  # type: ignore[arg-type]  # starts as the identity, as CLIP's does

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 4 inner, H / stride, W / stride]"""
        return F.relu(self.expand(self.pool(self.mix(self.reduce(x)))) + self.shortcut(x))


class ClipResNet(VisionEncoder):
    """The last map of CLIP's ResNets as patches; `MeanQueryAttention` pools them as CLIP does.

    Batch norm looks at one micro-batch of one rank, as in CLIP: several processes equal one only up to that.

    Args:
        image_size: side of the tiles in pixels.
        layers: bottlenecks at each of the four resolutions; RN50 has 3, 4, 6 and 3.
        channels: after the stem; the patches are 32 times as wide.
    """

    def __init__(self, image_size: int = 224, layers: Sequence[int] = (3, 4, 6, 3), channels: int = 64) -> None:
        super().__init__(CLIP_MEAN, CLIP_STD)
        if image_size % REDUCTION or len(layers) != 4 or channels % 2:
            raise ValueError(
                f"image_size {image_size} must be a multiple of {REDUCTION}, layers {list(layers)} four numbers, and "
                f"channels {channels} even."
            )
        self.image_size, self.width = image_size, EXPANSION * channels * 8
        self.patches_per_tile = (image_size // REDUCTION) ** 2
        stem: list[nn.Module] = []
        for given, made, stride in (
            (3, channels // 2, 2),
            (channels // 2, channels // 2, 1),
            (channels // 2, channels, 1),
        ):
            stem += [nn.Conv2d(given, made, 3, stride=stride, padding=1, bias=False), BatchNorm(made), nn.ReLU()]
        self.stem = nn.Sequential(*stem, nn.AvgPool2d(2))
        width, stages = channels, []
        for stage, depth in enumerate(layers):
            inner = channels * 2**stage
            for block in range(depth):
                stages.append(Bottleneck(width, inner, 2 if stage and not block else 1))
                width = EXPANSION * inner
        self.blocks = nn.Sequential(*stages)

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        return rearrange(self.blocks(self.stem(pixels)), "n w rows columns -> n (rows columns) w")
