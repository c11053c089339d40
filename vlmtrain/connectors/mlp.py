"""Linear layers with GELU between them over each patch (LLaVA-1.5, section 3.3)."""

from torch import Tensor, nn

from vlmtrain.connectors.base import Connector


def linear_layers(
    input_width: int, output_width: int, num_layers: int, activation: type[nn.Module] = nn.GELU
) -> nn.Sequential:
    """`num_layers` linear layers with `activation` between them."""
    if num_layers < 1:
        raise ValueError(f"num_layers {num_layers}: an MLP has at least one layer.")
    layers: list[nn.Module] = [nn.Linear(input_width, output_width)]
    for _ in range(num_layers - 1):
        layers += [activation(), nn.Linear(output_width, output_width)]
    return nn.Sequential(*layers)


class MLPConnector(Connector):
    """Every patch becomes a visual token.  `num_layers` counts the linear layers; 2 is LLaVA-1.5's `mlp2x_gelu`."""

    def __init__(self, encoder_width: int, patches_per_tile: int, language_width: int, num_layers: int = 2) -> None:
        super().__init__()
        self.tokens_per_tile = patches_per_tile
        self.layers = linear_layers(encoder_width, language_width, num_layers)

    def connect_tiles(self, patches: Tensor) -> Tensor:
        return self.layers(patches)
