"""Squares of patches become one visual token of their concatenation, through a norm and an MLP (InternVL)."""

from torch import Tensor, nn

from vlmtrain.connectors.base import Connector
from vlmtrain.connectors.grid import divided_side, space_to_depth, to_grid
from vlmtrain.connectors.mlp import linear_layers


class PixelShuffleMLP(Connector):
    """Space to depth, LayerNorm, then linear layers with GELU (InternVL 1.5; Chen et al. 2024).

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P, of a square grid; a class token is dropped.
        language_width: D of the language model.
        factor: side of the squares; `factor` squared times fewer tokens than patches.
        num_layers: linear layers.
    """

    def __init__(
        self, encoder_width: int, patches_per_tile: int, language_width: int, factor: int = 2, num_layers: int = 2
    ) -> None:
        super().__init__()
        self.factor = factor
        self.tokens_per_tile = divided_side(patches_per_tile, "factor", factor) ** 2
        self.norm = nn.LayerNorm(encoder_width * factor**2)
        self.layers = linear_layers(encoder_width * factor**2, language_width, num_layers)

    def connect_tiles(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, Q, D]"""
        return self.layers(self.norm(space_to_depth(to_grid(patches), self.factor).flatten(1, 2)))
