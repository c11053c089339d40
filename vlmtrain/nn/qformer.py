"""The Querying Transformer of BLIP-2 (Li et al. 2023, section 3.1): a few learned queries read an image.

Only the query side lives here, which is all that stage 2 takes along; `qformer_text` is the text side of stage 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.nn.checkpointing import RunsLayers
from vlmtrain.nn.post_norm import KeyValue, PostNormAttention, PostNormFeedForward, initialize_like_bert


class ImageKeyValue(NamedTuple):
    """What one layer reads of the images: [N, heads, P, d] each, and which patches are real."""

    key: Tensor
    value: Tensor
    mask: Tensor | None  # [N, 1, 1, P], False on padding; None: all are real


@dataclass(frozen=True)
class ImageMemory:
    """Keys and values of the image, per layer; None where a layer does not look at the image."""

    layers: Sequence[ImageKeyValue | None]

    def select(self, rows: Tensor) -> "ImageMemory":
        """The memory of image `rows[r]` for row r: [N, ...] -> [R, ...].

        By index_select: the gradient of plain indexing adds what several rows send to one image in no fixed order.
        """

        def of_rows(kept: ImageKeyValue | None) -> ImageKeyValue | None:
            if kept is None:
                return None
            mask = None if kept.mask is None else kept.mask.index_select(0, rows)
            return ImageKeyValue(kept.key.index_select(0, rows), kept.value.index_select(0, rows), mask)

        return ImageMemory([of_rows(kept) for kept in self.layers])


@dataclass(frozen=True)
class QueryPass:
    """What the queries have read, and what text that comes after may read of them."""

    states: Tensor  # [N, Q, D]
    kept: Sequence[KeyValue]  # per layer, of its self-attention: [N, heads, Q, d]


class QFormerLayer(nn.Module):
    """Self-attention, in some layers a look at the image, feed-forward; LayerNorm after each."""

    def __init__(
        self, width: int, memory_width: int | None, num_heads: int, inner_width: int, dropout: float, eps: float
    ) -> None:
        super().__init__()
        self.self_attention = PostNormAttention(width, width, num_heads, dropout, eps)
        self.cross_attention = (
            None if memory_width is None else PostNormAttention(width, memory_width, num_heads, dropout, eps)
        )
        self.feed_forward = PostNormFeedForward(width, inner_width, dropout, eps)

    def forward(self, queries: Tensor, memory: ImageKeyValue | None) -> tuple[Tensor, KeyValue]:
        """Queries without text: [N, Q, D] -> [N, Q, D], and what others may read of their self-attention."""
        own = self.self_attention.remember(queries)
        return self.after_self_attention(self.self_attention(queries, own), memory), own

    def after_self_attention(self, queries: Tensor, memory: ImageKeyValue | None) -> Tensor:
        """The part that text never passes: [N, Q, D] -> [N, Q, D]."""
        if self.cross_attention is not None:
            if memory is None:
                raise ValueError("this layer looks at the image, but the memory holds nothing for it")
            queries = self.cross_attention(queries, KeyValue(memory.key, memory.value), memory.mask)
        return self.feed_forward(queries)


class QFormer(RunsLayers, nn.Module):
    """A fixed number of learned queries that read patches through cross-attention in every second layer.

    Args:
        width: of queries and text, D.
        memory_width: of the patches, W.
        num_queries: Q, tokens that come out whatever the number of patches.
        depth: layers.
        num_heads: of every attention.
        cross_attention_every: layers 0, n, 2n, ... look at the image.
        feed_forward_width: inner width; four times `width` if not given.
        dropout: of attention weights and of what is added to the residual stream.
        layer_norm_eps: of every LayerNorm.
    """

    def __init__(  # noqa: PLR0913  the sizes of a published architecture, each a choice of its own
        self,
        width: int,
        memory_width: int,
        num_queries: int,
        depth: int,
        num_heads: int,
        cross_attention_every: int = 2,
        feed_forward_width: int | None = None,
        dropout: float = 0.0,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.width = width
        self.num_queries = num_queries
        self.num_heads = num_heads
        self.feed_forward_width = feed_forward_width or 4 * width
        self.dropout = dropout
        self.layer_norm_eps = layer_norm_eps
        self.patch_norm = nn.LayerNorm(memory_width)  # LAVIS' ln_vision: a tap below the top comes without a norm
        self.queries = nn.Parameter(torch.empty(num_queries, width))
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)  # of queries and of text embeddings alike
        self.layers = nn.ModuleList(
            QFormerLayer(
                width,
                None if index % cross_attention_every else memory_width,
                num_heads,
                self.feed_forward_width,
                dropout,
                layer_norm_eps,
            )
            for index in range(depth)
        )
        self.apply(initialize_like_bert)
        nn.init.normal_(self.queries, std=0.02)

    def stack(self) -> list[QFormerLayer]:
        """The layers in order."""
        return cast(list[QFormerLayer], list(self.layers))

    def enter(self, embeddings: Tensor) -> Tensor:
        """Norm and dropout at the entrance, for queries and for text."""
        return F.dropout(self.norm(embeddings), self.dropout, self.training)

    def first_queries(self, rows: int) -> Tensor:
        """Queries at the entrance of layer 0: [1, Q, D], shared by all rows until they have seen their image.

        Dropout is drawn per row, so with dropout each row has its own: [rows, Q, D].
        """
        queries = self.queries.unsqueeze(0)
        return self.enter(queries.expand(rows, -1, -1) if self.training and self.dropout else queries)

    def remember(self, patches: Tensor, patch_mask: Tensor | None = None) -> ImageMemory:
        """Patches [N, P, W] -> keys and values of all layers.  Once per batch, however many passes read them.

        Patches where patch_mask [N, P] is False are padding and are read by nobody.
        """
        patches = self.patch_norm(patches.to(self.queries.dtype))
        blocks = [layer.cross_attention for layer in self.stack()]
        mask = None if patch_mask is None else patch_mask[:, None, None, :]
        return ImageMemory(
            [None if block is None else ImageKeyValue(*block.remember(patches), mask) for block in blocks]
        )

    def read(self, memory: ImageMemory, rows: int) -> QueryPass:
        """The queries read `rows` images (N), without any text."""
        queries = self.first_queries(rows)
        kept = []
        for layer, of_image in zip(self.stack(), memory.layers, strict=True):
            queries, own = self.run(layer, queries, of_image)
            kept.append(own)
        return QueryPass(queries, kept)

    def forward(self, patches: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """[N, P, W], False on padding [N, P] -> [N, Q, D]"""
        return self.read(self.remember(patches, patch_mask), len(patches)).states
