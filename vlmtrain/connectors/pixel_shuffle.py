"""Squares of patches become one visual token of their concatenation, projected (Idefics3, SmolVLM)."""

from torch import Tensor, nn

from vlmtrain.connectors.base import Connector
from vlmtrain.connectors.grid import divided_side, space_to_depth, to_grid


class PixelShuffle(Connector):
    """Space to depth, then one linear layer without bias (Idefics3; Laurencon et al. 2024).

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P, of a square grid; a class token is dropped.
        language_width: D of the language model.
        factor: side of the squares; `factor` squared times fewer tokens than patches.
    """

    def __init__(self, encoder_width: int, patches_per_tile: int, language_width: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.tokens_per_tile = divided_side(patches_per_tile, "factor", factor) ** 2
        self.project = nn.Linear(encoder_width * factor**2, language_width, bias=False)

    def connect_tiles(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, Q, D]"""
        return self.project(space_to_depth(to_grid(patches), self.factor).flatten(1, 2))
