"""The three ways in which the Q-Former takes text in BLIP-2's stage 1 (Li et al. 2023, figure 2).

Queries and text share every self-attention; embeddings and feed-forward of the text are its own.  Which of the two may
read the other is the view: neither (contrastive), both (matching), text reads queries and earlier text (captioning).
All views leave padding out of linear layers and compute in the last layer only what is read; both are exact.
"""

import torch
from torch import Tensor

from vlmtrain.nn.packed_attention import joined, project_text, read_for_text
from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.post_norm import KeyValue, PostNormFeedForward
from vlmtrain.nn.qformer import ImageKeyValue, ImageMemory, QFormer, QFormerLayer, QueryPass
from vlmtrain.nn.qformer_text import QFormerText


def read_alone(qformer: QFormer, text: QFormerText, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Text that sees only text: ids [R, T] -> state of each row's first token [R, D]."""
    rows = PackedRows.of(attention_mask)
    states = qformer.enter(text.embed(input_ids, rows))
    visible = attention_mask[:, None, None, :]
    for layer, feed_forward in zip(qformer.stack()[:-1], text.stack()[:-1], strict=True):
        states = qformer.run(_text_layer, layer, feed_forward, states, rows, None, visible)
    attention = qformer.stack()[-1].self_attention
    memory = project_text(attention, states, rows)
    first = rows.pad(states)[:, :1]  # [R, 1, D]: nobody reads the other positions of the last layer
    return text.stack()[-1](attention(first, memory, visible)).squeeze(1)


def read_together(
    qformer: QFormer, text: QFormerText, memory: ImageMemory, input_ids: Tensor, rows: PackedRows
) -> Tensor:
    """Queries and text see each other, the queries see image r of `memory` too -> query states [R, Q, D].

    `rows` are the real positions of the ids [R, T].  The last layer asks for no feed-forward of the text.
    """
    states = qformer.enter(text.embed(input_ids, rows))
    queries = qformer.first_queries(len(input_ids))
    real = rows.mask()
    mask = torch.cat([real.new_ones(len(input_ids), qformer.num_queries), real], 1)[:, None, None, :]
    feed_forwards = [*text.stack()[: len(qformer.layers) - 1], None]  # nobody reads the text of the last layer
    for layer, feed_forward, of_image in zip(qformer.stack(), feed_forwards, memory.layers, strict=True):
        queries, states = qformer.run(_joint_layer, layer, feed_forward, queries, states, rows, of_image, mask)
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
        states = qformer.run(_text_layer, layer, feed_forward, states, rows, kept, mask)
    return states


def _text_layer(
    layer: QFormerLayer,
    feed_forward: PostNormFeedForward,
    text: Tensor,
    rows: PackedRows,
    before: KeyValue | None,
    mask: Tensor,
) -> Tensor:
    """Packed text [n, D] reads `before` (queries, already projected) and itself -> [n, D]."""
    own = project_text(layer.self_attention, text, rows)
    memory = own if before is None else joined(before, own)
    return feed_forward(read_for_text(layer.self_attention, text, rows, memory, mask))


def _joint_layer(
    layer: QFormerLayer,
    feed_forward: PostNormFeedForward | None,
    queries: Tensor,
    text: Tensor,
    rows: PackedRows,
    of_image: ImageKeyValue | None,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Queries [R, Q, D] and packed text [n, D] read both; without `feed_forward` the text stays as it is."""
    attention = layer.self_attention
    both = joined(attention.remember(queries), project_text(attention, text, rows))
    after = text if feed_forward is None else feed_forward(read_for_text(attention, text, rows, both, mask))
    return layer.after_self_attention(attention(queries, both, mask), of_image), after
