"""The seam between patches and visual tokens."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualFeatures, VisualTokens
from vlmtrain.layout import Layout


class Connector(nn.Module, ABC):
    """Encoder patches -> visual tokens of the language model's width.  Knows nothing of any language model.

    A connector that treats every tile alike implements `connect_tiles` and sets `tokens_per_tile`; one that mixes the
    tiles of an item (video), leaves out padded patches or reads the text overrides `forward`, and `tokens_per_item`
    where their number differs.
    """

    tokens_per_tile: int

    def tokens_per_item(self, tiles: int) -> int:
        """How many visual tokens an item of `tiles` tiles becomes.  The collator needs it before the model runs."""
        return tiles * self.tokens_per_tile

    def layout(self, layout: Layout) -> Layout:
        """The language model's layout; a connector that reads text itself wraps it in one that writes its rows too."""
        return layout

    @abstractmethod
    def connect_tiles(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, tokens_per_tile, D]"""

    def forward(self, features: VisualFeatures, text: TextBatch | None = None) -> VisualTokens:
        """`text` is what stands around the images, for connectors that look for what it asks about."""
        if features.patch_mask is not None:
            raise ValueError(
                f"{type(self).__name__} makes a visual token of every patch, padding included, and this encoder pads "
                "tiles of fewer patches; choose a connector that leaves padding out: model/connector=perceiver."
            )
        return self.pack(self.connect_tiles(features.patches), features)

    def pack(self, embeddings: Tensor, features: VisualFeatures) -> VisualTokens:
        """Visual tokens [tiles or items, each's tokens, D] of `features`, one after the other."""
        tokens_per_item = [self.tokens_per_item(tiles) for tiles in features.tiles_per_item]
        return VisualTokens(embeddings.flatten(0, 1), tokens_per_item, features.items_per_sample)
