"""The gated block of Flamingo, as OpenFlamingo builds it."""

from torch import nn

from vlmtrain.fusions.gated_block import GatedBlock
from vlmtrain.nn.cross_attention import CrossAttention


class FlamingoBlock(GatedBlock):
    """LayerNorms, GELU, no biases in linear layers (OpenFlamingo's `GatedCrossAttentionBlock`).

    Flamingo's own table 4 has squared ReLU in place of GELU.
    """

    def __init__(self, width: int, num_heads: int = 8, head_width: int = 64, feed_forward_factor: int = 4) -> None:
        inner_width = feed_forward_factor * width
        super().__init__(
            CrossAttention(width, num_heads, head_width, num_heads, norm=nn.LayerNorm, head_norm=nn.Identity),
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, inner_width, bias=False),
                nn.GELU(),
                nn.Linear(inner_width, width, bias=False),
            ),
        )
