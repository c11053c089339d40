"""The C-Abstractor of Honeybee (Cha et al. 2023, arXiv:2312.06742): convolutions that keep neighbours together."""

from math import isqrt

import torch
from einops import rearrange
from timm.layers import LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn

from vlmtrain.connectors.base import Connector
from vlmtrain.connectors.grid import grid_side, to_grid
from vlmtrain.connectors.mlp import linear_layers


class ConvAbstractor(Connector):
    """RegNet blocks with squeeze-excitation, average pooling to a smaller grid, the same blocks again, then an MLP.

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P, of a square grid; a class token is dropped.
        language_width: D of the language model.
        num_tokens: Q, a square number; the paper has 144 and 256.
        width: of the blocks.
        depth: blocks before the pooling, and after it.
        num_layers: of the MLP.
    """

    def __init__(
        self,
        encoder_width: int,
        patches_per_tile: int,
        language_width: int,
        num_tokens: int = 144,
        width: int = 1024,
        depth: int = 3,
        num_layers: int = 2,
    ) -> None:
        super().__init__()
        side = isqrt(max(num_tokens, 0))
        if side < 1 or side**2 != num_tokens:
            near = max(1, round(max(num_tokens, 0) ** 0.5)) ** 2
            raise ValueError(f"num_tokens {num_tokens} is no square, and the tokens are a grid; choose {near}.")
        if depth < 1:
            raise ValueError(
                f"depth {depth}: an abstractor has at least one block; model/connector=pooled_mlp has none."
            )
        self.tokens_per_tile = num_tokens
        rows = grid_side(patches_per_tile)
        self.positions = nn.Parameter(torch.empty(rows, rows, encoder_width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.before = _blocks(depth, encoder_width, width)
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.after = _blocks(depth, width, width)
        self.layers = linear_layers(width, language_width, num_layers, nn.SiLU)

    def connect_tiles(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, Q, D]"""
        grid = rearrange(to_grid(patches) + self.positions, "n h w c -> n c h w")
        pooled = self.after(self.pool(self.before(grid)))
        return self.layers(rearrange(pooled, "n c h w -> n (h w) c"))


def _blocks(depth: int, input_width: int, width: int) -> nn.Module:
    stage: nn.Module = RegStage(
        depth, input_width, width, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d
    )
    return stage
