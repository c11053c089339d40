"""Windows of the patch grid are averaged, then an MLP projects (DeCo; Yao et al. 2024)."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vlmtrain.connectors.base import Connector
from vlmtrain.connectors.grid import divided_side, to_grid
from vlmtrain.connectors.mlp import linear_layers


class PooledMLP(Connector):
    """The mean of each square of patches becomes a visual token.

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P, of a square grid; a class token is dropped.
        language_width: D of the language model.
        window: side of the squares; `window` squared times fewer tokens than patches.
        num_layers: linear layers, with GELU between them.
    """

    def __init__(
        self, encoder_width: int, patches_per_tile: int, language_width: int, window: int = 2, num_layers: int = 2
    ) -> None:
        super().__init__()
        self.window = window
        self.tokens_per_tile = divided_side(patches_per_tile, "window", window) ** 2
        self.layers = linear_layers(encoder_width, language_width, num_layers)

    def connect_tiles(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, Q, D]"""
        pooled = F.avg_pool2d(rearrange(to_grid(patches), "n h w c -> n c h w"), self.window)
        return self.layers(rearrange(pooled, "n c h w -> n (h w) c"))
