"""Pre-norm transformer blocks with biases (GPT-2, CLIP's text tower): reading oneself, and reading a memory."""

import torch
from torch import Tensor, nn

from vlmtrain.nn.attention import attend, merge_heads, split_heads

EXPANSION = 4  # of the MLP


class Attention(nn.Module):
    """Multi-head attention of one row of vectors to another, of any width.

    Args:
        width: D, of what reads and of what comes out.
        num_heads: they share the width.
        memory_width: of what is read; None: D.
    """

    def __init__(self, width: int, num_heads: int, memory_width: int | None = None) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} cannot be cut into num_heads {num_heads}; give a divisor.")
        self.num_heads = num_heads
        self.to_query = nn.Linear(width, width)
        self.to_key_value = nn.Linear(memory_width or width, 2 * width)
        self.to_out = nn.Linear(width, width)
        for linear in (self.to_query, self.to_key_value, self.to_out):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [B, T, D] reads memory [B, M, memory width] where mask [B or 1, T or 1, M] is True -> [B, T, D]"""
        query = split_heads(self.to_query(x), self.num_heads)
        key, value = (split_heads(each, self.num_heads) for each in self.to_key_value(memory).chunk(2, dim=-1))
        return self.to_out(merge_heads(attend(query, key, value, None if mask is None else mask.unsqueeze(1))))


class SelfBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    `depth`, of the stack, scales what is added down at the start, as in GPT-2.
    """

    def __init__(self, width: int, num_heads: int, depth: int = 1) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, EXPANSION * width), nn.GELU(), nn.Linear(EXPANSION * width, width))
        nn.init.normal_(self.mlp[0].weight, std=(2 * width) ** -0.5)  # type: ignore[arg-type]
        for added in (self.attention.to_out, self.mlp[2]):
            nn.init.normal_(added.weight, std=(width * 2 * depth) ** -0.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, D], mask [B or 1, T, T] -> [B, T, D]"""
        normed = self.attention_norm(x)
        x = x + self.attention(normed, normed, mask)
        return x + self.mlp(self.mlp_norm(x))


class CrossBlock(nn.Module):
    """x + attention(norm(x), norm(memory)), then x + mlp(norm(x))."""

    def __init__(self, width: int, num_heads: int, depth: int = 1) -> None:
        super().__init__()
        self.block = SelfBlock(width, num_heads, depth)
        self.memory_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x [B, T, D], memory [B, M, D] -> [B, T, D]"""
        block = self.block
        x = x + block.attention(block.attention_norm(x), self.memory_norm(memory))
        return x + block.mlp(block.mlp_norm(x))


def causal(length: int, device: torch.device) -> Tensor:
    """[1, T, T] bool: position t may read what stands at or before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril().unsqueeze(0)
