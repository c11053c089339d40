"""From any number of patches to a vector for contrast and some for writing (CoCa: Yu et al. 2022, section 3.2)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vlmtrain.nn.pre_norm import Attention


class AttentionalPooler(nn.Module):
    """Learned queries read the patches by one layer of attention.

    Args:
        memory_width: W, of the patches.
        width: D, of the queries.
        num_queries: Q.
        num_heads: of the attention.
    """

    def __init__(self, memory_width: int, width: int, num_queries: int, num_heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(num_queries, width))
        self.query_norm = nn.LayerNorm(width)
        self.memory_norm = nn.LayerNorm(memory_width)
        self.attention = Attention(width, num_heads, memory_width)

    def forward(self, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, M, W], mask [B, M] -> [B, Q, D]"""
        queries = self.query_norm(self.queries).expand(len(memory), -1, -1)
        return self.attention(queries, self.memory_norm(memory), None if mask is None else mask.unsqueeze(1))


class ImagePooler(nn.Module, ABC):
    """[B, P, W] -> [B, 1 + Q, D]: the vector for contrast, then those for writing."""

    @abstractmethod
    def forward(self, patches: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` [B, P] is True on real patches; None where all are."""


class SharedPooler(ImagePooler):
    """One pooler, whose first query is for contrast: what open_clip trains."""

    def __init__(self, memory_width: int, width: int, num_queries: int = 255, num_heads: int = 8) -> None:
        super().__init__()
        self.pooler = AttentionalPooler(memory_width, width, 1 + num_queries, num_heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, patches: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.norm(self.pooler(patches, mask))


class CascadedPooler(ImagePooler):
    """A pooler for writing, and one of a single query that reads what that has read: the paper's."""

    def __init__(self, memory_width: int, width: int, num_queries: int = 256, num_heads: int = 8) -> None:
        super().__init__()
        self.writing = AttentionalPooler(memory_width, width, num_queries, num_heads)
        self.contrast = AttentionalPooler(width, width, 1, num_heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, patches: Tensor, mask: Tensor | None = None) -> Tensor:
        written = self.writing(patches, mask)
        return self.norm(torch.cat([self.contrast(written), written], dim=1))
