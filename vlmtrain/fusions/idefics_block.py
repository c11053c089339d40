"""The gated block of IDEFICS, the open Flamingo on a Llama."""

from functools import partial

from torch import nn

from vlmtrain.fusions.gated_block import GatedBlock
from vlmtrain.nn.cross_attention import CrossAttention, HeadNorm
from vlmtrain.nn.swiglu import SwiGLU


class IdeficsBlock(GatedBlock):
    """Llama's norms and feed-forward; queries and keys normed per head (transformers' `qk_layer_norms`)."""

    def __init__(
        self,
        width: int,
        num_heads: int = 8,
        head_width: int = 64,
        feed_forward_factor: float = 2.6875,
        norm_eps: float = 1e-6,
    ) -> None:
        norm, head_norm = partial(nn.RMSNorm, eps=norm_eps), partial(HeadNorm, eps=norm_eps)
        super().__init__(
            CrossAttention(width, num_heads, head_width, num_heads, norm=norm, head_norm=head_norm),
            nn.Sequential(norm(width), SwiGLU(width, int(feed_forward_factor * width))),
        )
