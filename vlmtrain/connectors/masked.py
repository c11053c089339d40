"""Connectors that take every tile for itself, and of each only the real patches."""

from abc import abstractmethod

from torch import Tensor

from vlmtrain.batch import TextBatch, VisualFeatures, VisualTokens
from vlmtrain.connectors.base import Connector
from vlmtrain.connectors.padding import blank_padding


class MaskedConnector(Connector):
    """A Connector whose `connect_tiles` is told which patches are padding, and leaves them out."""

    @abstractmethod
    def connect_tiles(self, patches: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """patches [N, P, W], patch_mask [N, P] -> [N, tokens_per_tile, D]"""

    def forward(self, features: VisualFeatures, text: TextBatch | None = None) -> VisualTokens:
        patches = blank_padding(features.patches, features.patch_mask)
        return self.pack(self.connect_tiles(patches, features.patch_mask), features)
