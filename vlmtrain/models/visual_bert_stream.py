"""VisualBERT's transformer (Li et al. 2019, arXiv:1908.03557, section 3): BERT over words and visual features."""

import torch
from torch import Tensor, nn

from vlmtrain.models.bert_start import start_from_bert
from vlmtrain.models.single_stream import SingleStream
from vlmtrain.nn.post_norm import PostNormAttention, PostNormFeedForward, initialize_like_bert
from vlmtrain.nn.pretrained import builds_without_weights


class BertBlock(nn.Module):
    """Self-attention and feed-forward of BERT, each with its residual sum and the norm after it."""

    def __init__(self, width: int, num_heads: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.attention = PostNormAttention(width, width, num_heads, dropout, layer_norm_eps)
        self.feed_forward = PostNormFeedForward(width, 4 * width, dropout, layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[R, S, D], who may be read [R, 1, 1, S] -> [R, S, D]"""
        return self.feed_forward(self.attention(x, self.attention.remember(x), mask))


class VisualBertStream(SingleStream):
    """BERT; visual features are projected and get a vector that says that they are visual.

    That vector is the sum of VisualBERT's type and position of visual tokens, of which it uses one each.  Where a
    patch stands, its features have to say: those of a ViT or a deep CNN do, as do regions with their boxes.

    Args:
        patch_width: of the encoder.
        vocab_size: of the tokenizer.
        max_positions: longest text.
        bert: folder of a BERT to start words, positions and blocks from, as published; None: random weights.
    """

    def __init__(
        self,
        patch_width: int,
        vocab_size: int,
        width: int,
        depth: int,
        num_heads: int,
        max_positions: int = 512,
        dropout: float = 0.1,
        bert: str | None = None,
    ) -> None:
        super().__init__()
        self.width, self.dropout, self.layer_norm_eps, self.source = width, dropout, 1e-12, bert or "random"
        self.words = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(max_positions, width)
        self.segment = nn.Parameter(torch.zeros(width))  # the type of BERT's first segment
        self.visual_projection = nn.Linear(patch_width, width)
        self.visual_type = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width, eps=self.layer_norm_eps)
        self.blocks = nn.ModuleList(BertBlock(width, num_heads, dropout, self.layer_norm_eps) for _ in range(depth))
        self.apply(initialize_like_bert)
        if bert is not None and not builds_without_weights():
            start_from_bert(self, bert, num_heads)

    def embed_text(self, input_ids: Tensor) -> Tensor:
        return self._finish(self.words(input_ids) + self.positions_of(self.positions, input_ids) + self.segment)

    def embed_image(self, patches: Tensor) -> Tensor:
        return self._finish(self.visual_projection(patches) + self.visual_type)

    def run(self, x: Tensor, mask: Tensor) -> Tensor:
        readable = mask[:, None, None, :]
        for block in self.blocks:
            x = block(x, readable)
        return x

    def _finish(self, embedded: Tensor) -> Tensor:
        return nn.functional.dropout(self.norm(embedded), self.dropout, self.training)
