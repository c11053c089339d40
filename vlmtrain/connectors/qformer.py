"""A Q-Former as connector (BLIP-2 stage 2; Li et al. 2023, section 3.2)."""

from collections.abc import Callable

from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualFeatures, VisualTokens
from vlmtrain.connectors.base import Connector
from vlmtrain.nn.qformer import QFormer


class QFormerConnector(Connector):
    """The queries' states, projected to the language model's width: a soft visual prompt of fixed length.

    Stage 1 (vlmtrain.models.qformer_pretraining) trains the same `qformer` module under the same names.  Patches that
    only pad a tile are not read.

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P; a Q-Former takes any number.
        language_width: D of the language model.
        qformer: makes the Q-Former when called with `memory_width`.
    """

    def __init__(
        self, encoder_width: int, patches_per_tile: int, language_width: int, qformer: Callable[..., QFormer]
    ) -> None:
        super().__init__()
        self.qformer = qformer(memory_width=encoder_width)
        self.project = nn.Linear(self.qformer.width, language_width)
        self.tokens_per_tile = self.qformer.num_queries

    def connect_tiles(self, patches: Tensor) -> Tensor:
        """[N, P, W] -> [N, Q, D]"""
        return self.project(self.qformer(patches))

    def forward(self, features: VisualFeatures, text: TextBatch | None = None) -> VisualTokens:
        return self.pack(self.project(self.qformer(features.patches, features.patch_mask)), features)
