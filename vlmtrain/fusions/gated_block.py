"""A gated cross-attention dense block (Flamingo, section 2.2 and figure 4)."""

import torch
from torch import Tensor, nn

from vlmtrain.nn.cross_attention import CrossAttention, Remembered
from vlmtrain.nn.initial_std import initial_std


class GatedBlock(nn.Module):
    """Reads the visual memory, then thinks about it; the gate of either is tanh of a scalar that starts at 0.

    At the start the block is therefore exactly the identity, and only the gates have a gradient.  The projections out
    of a sub-layer must not start at 0 as well: nothing would ever train.

    `feed_forward` norms its input itself.  Gates have one axis, because FSDP2 does not shard scalars.
    """

    def __init__(self, attention: CrossAttention, feed_forward: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward_gate = nn.Parameter(torch.zeros(1))
        self.apply(_initialize)

    def forward(
        self, x: Tensor, memory: Tensor, visible: Tensor, remembered: Remembered | None = None
    ) -> tuple[Tensor, Remembered]:
        """x [B, T, D] with memory [B, M, D] where visible [B, T, M] -> the same shape and dtype; see CrossAttention.

        x may have another precision than the weights: sums are kept in that of x, as the language model keeps them.
        """
        precision = self.attention_gate.dtype
        read, remembered = self.attention(x.to(precision), memory.to(precision), visible, remembered)
        x = x + (self.attention_gate.tanh() * read).to(x.dtype)
        thought = self.think(x.to(precision), visible)
        return x + (self.feed_forward_gate.tanh() * thought).to(x.dtype), remembered

    def think(self, x: Tensor, visible: Tensor) -> Tensor:
        """The feed-forward sub-layer, which in Flamingo is for every position, also where nothing is visible."""
        return self.feed_forward(x)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=initial_std(module.in_features))
