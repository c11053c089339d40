"""The simplest connector: one linear layer over each patch (LLaVA)."""

from torch import Tensor, nn

from vlmtrain.connectors.base import Connector


class LinearConnector(Connector):
    """Every patch becomes a visual token."""

    def __init__(self, encoder_width: int, patches_per_tile: int, language_width: int) -> None:
        super().__init__()
        self.tokens_per_tile = patches_per_tile
        self.project = nn.Linear(encoder_width, language_width)

    def connect_tiles(self, patches: Tensor) -> Tensor:
        return self.project(patches)
