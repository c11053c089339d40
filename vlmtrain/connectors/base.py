"""The seam between patches and visual tokens."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vlmtrain.batch import VisualFeatures, VisualTokens


class Connector(nn.Module, ABC):
    """Encoder patches -> visual tokens of the language model's width.  Knows nothing of any language model.

    A connector that treats every tile alike implements `connect_tiles` and `tokens_per_tile`; one that mixes the
    tiles of an item (video) overrides `forward` and `tokens_per_item`.
    """

    tokens_per_tile: int

    def tokens_per_item(self, tiles: int) -> int:
        """How many visual tokens an item of `tiles` tiles becomes.  The collator needs it before the model runs."""
        return tiles * self.tokens_per_tile

    @abstractmethod
    def connect_tiles(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, tokens_per_tile, D]"""

    def forward(self, features: VisualFeatures) -> VisualTokens:
        embeddings = self.connect_tiles(features.patches).flatten(0, 1)  # [V, D]
        tokens_per_item = [self.tokens_per_item(tiles) for tiles in features.tiles_per_item]
        return VisualTokens(embeddings, tokens_per_item, features.items_per_sample)
