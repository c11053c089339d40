"""Learned latents that read a context and themselves: the attention of the perceiver resamplers."""

import torch
from torch import Tensor, nn

from vlmtrain.nn.attention import attend, merge_heads, split_heads


class LatentAttention(nn.Module):
    """Queries of the latents; keys and values of [context, latents] (Flamingo, Alayrac et al. 2022, figure 5).

    Args:
        width: of latents and context.
        num_heads: of the queries.
        head_width: of one head; the heads together need not be as wide as `width`.
        num_key_value_heads: fewer than `num_heads` where several query heads share one (grouped-query attention).
    """

    def __init__(self, width: int, num_heads: int, head_width: int, num_key_value_heads: int | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.num_key_value_heads = num_heads if num_key_value_heads is None else num_key_value_heads
        if num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads {num_key_value_heads} does not divide num_heads {num_heads}: "
                "every key is shared by equally many query heads."
            )
        self.to_query = nn.Linear(width, num_heads * head_width, bias=False)
        self.to_key_value = nn.Linear(width, 2 * self.num_key_value_heads * head_width, bias=False)
        self.to_out = nn.Linear(num_heads * head_width, width, bias=False)

    def forward(self, latents: Tensor, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """latents [B, Q, D] read context [B, S, D] where `context_mask` [B, S] is True -> [B, Q, D]"""
        key, value = self.to_key_value(torch.cat([context, latents], dim=1)).chunk(2, dim=-1)
        shared_by = self.num_heads // self.num_key_value_heads
        read = attend(
            split_heads(self.to_query(latents), self.num_heads),
            split_heads(key, self.num_key_value_heads).repeat_interleave(shared_by, dim=1),
            split_heads(value, self.num_key_value_heads).repeat_interleave(shared_by, dim=1),
            mask=None if context_mask is None else with_latents(context_mask, latents.shape[1]),
        )
        return self.to_out(merge_heads(read))


def with_latents(context_mask: Tensor, num_latents: int) -> Tensor:
    """[B, S] -> [B, 1, 1, S + Q]: the latents may always be read."""
    latents = context_mask.new_ones(len(context_mask), num_latents)
    return torch.cat([context_mask, latents], dim=1)[:, None, None]
