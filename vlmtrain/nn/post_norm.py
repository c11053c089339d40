"""The two blocks of a BERT layer, each with its residual sum and the LayerNorm after it (Devlin et al. 2018)."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.nn.attention import attend, merge_heads, split_heads
from vlmtrain.nn.initial_std import REFERENCE_STD, initial_std


class KeyValue(NamedTuple):
    """What an attention block reads, projected and cut into heads: [B, heads, S, d] each."""

    key: Tensor
    value: Tensor


class PostNormAttention(nn.Module):
    """Attention whose steps can be called apart, so that what several passes share is computed once.

    Self-attention where `memory_width` equals `width`, cross-attention to a memory otherwise.
    """

    def __init__(
        self, width: int, memory_width: int, num_heads: int, dropout: float = 0.0, layer_norm_eps: float = 1e-12
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} does not divide into {num_heads} heads; choose a divisor of {width}")
        self.num_heads = num_heads
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(memory_width, 2 * width)
        self.to_out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = dropout

    def split(self, projected: Tensor) -> Tensor:
        """[B, T, D] -> [B, heads, T, d]"""
        return split_heads(projected, self.num_heads)

    def split_key_value(self, projected: Tensor) -> KeyValue:
        """[B, S, 2 D], as `to_key_value` makes it -> keys and values in heads."""
        key, value = projected.chunk(2, dim=-1)
        return KeyValue(self.split(key), self.split(value))

    def remember(self, memory: Tensor) -> KeyValue:
        """[B, S, W] -> what `forward` reads."""
        return self.split_key_value(self.to_key_value(memory))

    def read(self, query: Tensor, memory: KeyValue, mask: Tensor | None = None) -> Tensor:
        """Query heads [B, heads, T, d] read `memory` -> [B, T, D], before the output projection."""
        return merge_heads(attend(query, *memory, mask=mask, dropout=self.dropout if self.training else 0.0))

    def add(self, x: Tensor, read: Tensor) -> Tensor:
        """Output projection, residual sum, norm: [..., D] -> [..., D]."""
        return self.norm(x + F.dropout(self.to_out(read), self.dropout, self.training))

    def forward(self, x: Tensor, memory: KeyValue, mask: Tensor | None = None) -> Tensor:
        """x [B, T, D] reads `memory` where `mask` (True = may be read) allows.  A batch of 1 is shared by all."""
        return self.add(x, self.read(self.split(self.to_query(x)), memory, mask))


class PostNormFeedForward(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, inner_width: int, dropout: float = 0.0, layer_norm_eps: float = 1e-12) -> None:
        super().__init__()
        self.expand = nn.Linear(width, inner_width)
        self.contract = nn.Linear(inner_width, width)
        self.norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        inner = self.contract(F.gelu(self.expand(x)))
        return self.norm(x + F.dropout(inner, self.dropout, self.training))


def initialize_like_bert(module: nn.Module) -> None:
    """Normal weights and zero biases, at BERT's width BERT's initialisation; for `Module.apply`."""
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=REFERENCE_STD)
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=initial_std(module.in_features))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
