"""Patches as they are, for encoders that speak the language model's width already."""

from torch import Tensor

from vlmtrain.connectors.base import Connector


class IdentityConnector(Connector):
    """Every patch is a visual token; nothing is learned here (Fuyu; Bavishi et al. 2023)."""

    def __init__(self, encoder_width: int, patches_per_tile: int, language_width: int) -> None:
        super().__init__()
        if encoder_width != language_width:
            raise ValueError(
                f"The encoder's width {encoder_width} is not the language model's {language_width}, and this connector "
                "hands patches on as they are; choose one that projects: model/connector=linear."
            )
        self.tokens_per_tile = patches_per_tile

    def connect_tiles(self, patches: Tensor) -> Tensor:
        return patches
