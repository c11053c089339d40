"""One transformer over words and patches alike: what single-stream models have in common."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmtrain.nn.checkpointing import Checkpointable, checkpointed


@dataclass(frozen=True)
class JointStates:
    """Last states of words and of patches, each having seen the other."""

    text: Tensor  # [R, T, D]
    image: Tensor  # [R, P, D]


class SingleStream(Checkpointable, nn.Module, ABC):
    """Text and image as one sequence.  Its order is known to `forward` and to nothing else.

    A subclass sets `width`, `layer_norm_eps`, `words` (the embedding that also predicts words) and `blocks`.
    """

    width: int  # D
    layer_norm_eps: float
    words: nn.Embedding
    blocks: nn.ModuleList
    source: str = "random"  # name or folder of the pretrained weights

    @abstractmethod
    def embed_text(self, input_ids: Tensor) -> Tensor:
        """[R, T] -> [R, T, D], ready for the first block."""

    @abstractmethod
    def embed_image(self, patches: Tensor) -> Tensor:
        """[R, P, W] -> [R, P, D], ready for the first block."""

    @abstractmethod
    def run(self, x: Tensor, mask: Tensor) -> Tensor:
        """All blocks: [R, T + P, D], mask [R, T + P] (True = may be read) -> [R, T + P, D]"""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, patches: Tensor, patch_mask: Tensor | None
    ) -> JointStates:
        """Row r reads `patches[r]`."""
        visible = attention_mask.new_ones(patches.shape[:2]) if patch_mask is None else patch_mask
        x = torch.cat([self.embed_text(input_ids), self.embed_image(patches)], dim=1)
        with checkpointed(self.blocks, self.is_checkpointed):
            x = self.run(x, torch.cat([attention_mask, visible], dim=1))
        text, image = x.split([input_ids.shape[1], patches.shape[1]], dim=1)
        return JointStates(text, image)

    def positions_of(self, table: nn.Embedding, input_ids: Tensor) -> Tensor:
        """The first rows of `table`, one for each column: [T, D].  ValueError where there are too few."""
        length = input_ids.shape[1]
        if length > table.num_embeddings:
            raise ValueError(
                f"text of {length} tokens exceeds the {table.num_embeddings} positions of {type(self).__name__}; "
                "lower max_tokens or raise max_positions"
            )
        return table.weight[:length]
