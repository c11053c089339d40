"""A small transformer reads patches and learned constants, and only the constants go on.

ClipCap's mapping network (Mokady et al. 2021) and the "plain Transformer" that Flamingo compares its
resampler with (Alayrac et al. 2022, section 3.3).  Flamingo's latents read the patches; here the patches read, too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.connectors.masked import MaskedConnector
from vlmtrain.nn.attention import attend, merge_heads, split_heads

FEED_FORWARD_FACTOR = 2


class MapperLayer(nn.Module):
    """Self-attention both ways and a ReLU feed-forward, LayerNorm before each."""

    def __init__(self, width: int, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.to_query_key_value = nn.Linear(width, 3 * num_heads * head_width, bias=False)
        self.to_out = nn.Linear(num_heads * head_width, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, FEED_FORWARD_FACTOR * width)
        self.contract = nn.Linear(FEED_FORWARD_FACTOR * width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [N, T, D], mask [N, 1, 1, T] -> [N, T, D]"""
        heads = self.to_query_key_value(self.attention_norm(x)).chunk(3, dim=-1)
        query, key, value = (split_heads(head, self.num_heads) for head in heads)
        x = x + self.to_out(merge_heads(attend(query, key, value, mask)))
        return x + self.contract(F.relu(self.expand(self.feed_forward_norm(x))))


class TransformerMapper(MaskedConnector):
    """A fixed number of visual tokens per tile: the states of learned constants.

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P; a mapper takes any number.
        language_width: D of the language model, and of the mapper.
        num_tokens: Q, learned constants.
        depth: layers.
        num_heads: of every attention.
        head_width: of one head; ClipCap has D / num_heads.
    """

    def __init__(
        self,
        encoder_width: int,
        patches_per_tile: int,
        language_width: int,
        num_tokens: int = 10,
        depth: int = 8,
        num_heads: int = 8,
        head_width: int = 64,
    ) -> None:
        super().__init__()
        self.tokens_per_tile = num_tokens
        self.project = nn.Linear(encoder_width, language_width)
        self.constants = nn.Parameter(torch.randn(num_tokens, language_width))
        self.layers = nn.ModuleList(MapperLayer(language_width, num_heads, head_width) for _ in range(depth))

    def wrapping_units(self) -> nn.ModuleList:
        return self.layers

    def connect_tiles(self, patches: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """patches [N, P, W], patch_mask [N, P] -> [N, Q, D]"""
        num_tiles, num_patches = patches.shape[:2]
        mask = None
        if patch_mask is not None:
            constants = patch_mask.new_ones(num_tiles, self.tokens_per_tile)
            mask = torch.cat([patch_mask, constants], dim=1)[:, None, None]
        x = torch.cat([self.project(patches), self.constants.expand(num_tiles, -1, -1)], dim=1)
        for layer in self.layers:
            x = layer(x, mask)
        return x[:, num_patches:]
