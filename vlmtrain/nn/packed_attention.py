"""Attention over packed text: linear layers see real positions only, padding exists around attention alone."""

import torch
from torch import Tensor

from vlmtrain.nn.packing import PackedRows
from vlmtrain.nn.post_norm import KeyValue, PostNormAttention


def project_text(attention: PostNormAttention, text: Tensor, rows: PackedRows) -> KeyValue:
    """Packed text [n, D] -> keys and values [R, heads, T, d]."""
    return attention.split_key_value(rows.pad(attention.to_key_value(text)))


def read_for_text(
    attention: PostNormAttention, text: Tensor, rows: PackedRows, memory: KeyValue, mask: Tensor | None
) -> Tensor:
    """Packed text [n, D] reads `memory` [R, heads, S, d] where mask [R, 1, 1 | T, S] -> [n, D]."""
    query = attention.split(rows.pad(attention.to_query(text)))
    return attention.add(text, rows.pack(attention.read(query, memory, mask)))


def joined(first: KeyValue, second: KeyValue) -> KeyValue:
    """Two memories one after the other; `first` may be shared by all rows."""
    rows = len(second.key)
    return KeyValue(*(torch.cat([a.expand(rows, -1, -1, -1), b], dim=2) for a, b in zip(first, second, strict=True)))
