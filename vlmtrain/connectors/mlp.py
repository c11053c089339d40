"""Linear layers with GELU between them over each patch (LLaVA-1.5, section 3.3)."""

from torch import Tensor, nn

from vlmtrain.connectors.base import Connector


class MLPConnector(Connector):
    """Every patch becomes a visual token.  `num_layers` counts the linear layers; 2 is LLaVA-1.5's `mlp2x_gelu`."""

    def __init__(self, encoder_width: int, patches_per_tile: int, language_width: int, num_layers: int = 2) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers {num_layers}: an MLP has at least one layer.")
        self.tokens_per_tile = patches_per_tile
        layers: list[nn.Module] = [nn.Linear(encoder_width, language_width)]
        for _ in range(num_layers - 1):
            layers += [nn.GELU(), nn.Linear(language_width, language_width)]
        self.layers = nn.Sequential(*layers)

    def connect_tiles(self, patches: Tensor) -> Tensor:
        return self.layers(patches)
