"""Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1), on the path that is fastest where it runs."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

LONGEST_EXPLICIT = 1024  # beyond this many keys the score matrix costs more memory than the explicit path saves time


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """[B, T, D] -> [B, heads, T, D / heads]"""
    return rearrange(x, "b t (h d) -> b h t d", h=num_heads)


def merge_heads(x: Tensor) -> Tensor:
    """[B, heads, T, D / heads] -> [B, T, D]"""
    return rearrange(x, "b h t d -> b t (h d)")


def prefers_explicit(query: Tensor, key: Tensor) -> bool:
    """On CPU in bf16 two matmuls and a softmax beat the fused kernel 1.3 to 4.3 times at the lengths of VLMs."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and key.shape[-2] <= LONGEST_EXPLICIT


def attend_explicitly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Attention written out; every row of `mask` must see something."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    shares = scores.softmax(-1).to(value.dtype)
    return (F.dropout(shares, dropout) if dropout else shares) @ value


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Each query reads the values whose keys it resembles.

    Args:
        query: [B, heads, T, d].
        key: [B, heads, S, d]; a batch of 1 on either side is shared by the whole other side.
        value: like `key`.
        mask: bool, broadcasts to [B, heads, T, S]; True = may be read.  None: everything may.
        dropout: share of attention weights dropped; the caller passes 0 in evaluation.

    Returns:
        [B, heads, T, d].  A query that may read nothing gets zeros, never NaN.
    """
    batch = max(len(query), len(key)) if len(query) and len(key) else 0
    query, key, value = (x.expand(batch, -1, -1, -1) if len(x) == 1 else x for x in (query, key, value))
    sees_anything = None
    if mask is not None:
        sees_anything = mask.any(-1, keepdim=True)
        mask = mask | ~sees_anything  # blind rows read everything and are zeroed below: softmax stays finite
    if prefers_explicit(query, key):
        result = attend_explicitly(query, key, value, mask, dropout)
    else:
        result = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return result if sees_anything is None else result.masked_fill(~sees_anything, 0.0)
