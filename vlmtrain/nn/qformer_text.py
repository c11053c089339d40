"""The text side of the Q-Former (BLIP-2 stage 1; Li et al. 2023, figure 2)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.post_norm import PostNormFeedForward, initialize_like_bert


class QFormerText(nn.Module):
    """Words, positions and one feed-forward per layer: what a Q-Former needs beside itself to read text."""

    def __init__(
        self,
        width: int,
        depth: int,
        vocab_size: int,
        max_positions: int = 512,
        feed_forward_width: int | None = None,
        dropout: float = 0.0,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(max_positions, width)
        self.feed_forwards = nn.ModuleList(
            PostNormFeedForward(width, feed_forward_width or 4 * width, dropout, layer_norm_eps) for _ in range(depth)
        )
        self.apply(initialize_like_bert)

    def stack(self) -> list[PostNormFeedForward]:
        """The feed-forwards of the layers in order."""
        return cast(list[PostNormFeedForward], list(self.feed_forwards))

    def embed(self, input_ids: Tensor, rows: PackedRows) -> Tensor:
        """Ids [R, T] -> embeddings of the real positions [n, D], before the norm (which queries and text share)."""
        if rows.length > self.positions.num_embeddings:
            raise ValueError(
                f"text of {rows.length} tokens exceeds the {self.positions.num_embeddings} positions of the Q-Former; "
                "lower max_tokens or raise max_positions"
            )
        return self.words(rows.pack(input_ids)) + self.positions(rows.columns())


class TextHead(nn.Module):
    """BERT's masked-word head: dense, GELU, LayerNorm, then the word embeddings themselves as decoder, and a bias."""

    def __init__(self, width: int, vocab_size: int, layer_norm_eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.apply(initialize_like_bert)

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """states [s, D], word embeddings [vocabulary, D] -> logits [s, vocabulary]"""
        return F.linear(self.norm(F.gelu(self.dense(states))), words, self.bias)
