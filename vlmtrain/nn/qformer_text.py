"""The text side of the Q-Former, and the three views that stage 1 of BLIP-2 takes (Li et al. 2023, figure 2).

Queries and text share every self-attention; embeddings and feed-forward of the text are its own.  Which of the two may
read the other is the view: neither (contrastive), both (matching), text reads queries and earlier text (captioning).
All views leave padding out of linear layers and compute in the last layer only what is read; both are exact.
"""

from typing import cast

import torch
from torch import Tensor, nn

from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.post_norm import KeyValue, PostNormAttention, PostNormFeedForward, initialize_like_bert
from vlmtrain.nn.qformer import ImageMemory, QFormer, QueryPass


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


def project_text(attention: PostNormAttention, text: Tensor, rows: PackedRows) -> KeyValue:
    """Packed text [n, D] -> keys and values [R, heads, T, d]."""
    return attention.split_key_value(rows.pad(attention.to_key_value(text)))


def read_for_text(
    attention: PostNormAttention, text: Tensor, rows: PackedRows, memory: KeyValue, mask: Tensor
) -> Tensor:
    """Packed text [n, D] reads `memory` [R, heads, S, d] where mask [R, 1, 1 | T, S] -> [n, D]."""
    query = attention.split(rows.pad(attention.to_query(text)))
    return attention.add(text, rows.pack(attention.read(query, memory, mask)))


def joined(first: KeyValue, second: KeyValue) -> KeyValue:
    """Two memories one after the other; `first` may be shared by all rows."""
    rows = len(second.key)
    return KeyValue(*(torch.cat([a.expand(rows, -1, -1, -1), b], dim=2) for a, b in zip(first, second, strict=True)))


def read_alone(qformer: QFormer, text: QFormerText, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Text that sees only text: ids [R, T] -> state of each row's first token [R, D]."""
    rows = PackedRows.of(attention_mask)
    states = qformer.enter(text.embed(input_ids, rows))
    visible = attention_mask[:, None, None, :]
    for layer, feed_forward in zip(qformer.stack()[:-1], text.stack()[:-1], strict=True):
        attention = layer.self_attention
        states = feed_forward(read_for_text(attention, states, rows, project_text(attention, states, rows), visible))
    attention = qformer.stack()[-1].self_attention
    memory = project_text(attention, states, rows)
    first = rows.pad(states)[:, :1]  # [R, 1, D]: nobody reads the other positions of the last layer
    return text.stack()[-1](attention(first, memory, visible)).squeeze(1)


def read_together(
    qformer: QFormer, text: QFormerText, memory: ImageMemory, input_ids: Tensor, attention_mask: Tensor
) -> Tensor:
    """Queries and text see each other, the queries see image r of `memory` too -> query states [R, Q, D]."""
    rows = PackedRows.of(attention_mask)
    num_rows, num_queries = len(input_ids), qformer.num_queries
    states = qformer.enter(text.embed(input_ids, rows))
    queries = qformer.first_queries(num_rows)
    mask = torch.cat([attention_mask.new_ones(num_rows, num_queries), attention_mask], 1)[:, None, None, :]
    last = len(qformer.layers) - 1
    for index, (layer, of_image) in enumerate(zip(qformer.stack(), memory.layers, strict=True)):
        attention = layer.self_attention
        both = joined(attention.remember(queries), project_text(attention, states, rows))
        if index < last:  # nobody reads the text of the last layer
            after = read_for_text(attention, states, rows, both, mask)
            states = text.stack()[index](after)
        queries = layer.after_self_attention(attention(queries, both, mask), of_image)
    return queries


def read_causally(
    qformer: QFormer, text: QFormerText, query_pass: QueryPass, input_ids: Tensor, rows: PackedRows
) -> Tensor:
    """Text sees the queries and the text before it -> its states at the positions of `rows` [n, D].

    Queries never see the text here, so their keys and values are those of the pass without text, and only text is
    computed.  `rows` may leave out positions that no position in `rows` comes after.
    """
    states = qformer.enter(text.embed(input_ids, rows))
    before = torch.ones(rows.length, rows.length, dtype=torch.bool, device=input_ids.device).tril()
    own = before & rows.mask()[:, None, :]  # [R, T, T]
    mask = torch.cat([own.new_ones(rows.num_rows, rows.length, qformer.num_queries), own], 2).unsqueeze(1)
    for layer, feed_forward, kept in zip(qformer.stack(), text.stack(), query_pass.kept, strict=True):
        attention = layer.self_attention
        both = joined(kept, project_text(attention, states, rows))
        states = feed_forward(read_for_text(attention, states, rows, both, mask))
    return states
