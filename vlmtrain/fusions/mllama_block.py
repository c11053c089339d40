"""The gated block of Llama-3.2-Vision (arXiv:2407.21783, section 7.3)."""

from functools import partial

from torch import Tensor, nn

from vlmtrain.fusions.gated_block import GatedBlock
from vlmtrain.nn.cross_attention import CrossAttention, HeadNorm
from vlmtrain.nn.swiglu import SwiGLU


class MllamaBlock(GatedBlock):
    """Llama's norms, feed-forward and shared key-value heads; queries and keys normed per head.

    A position before the first item passes unchanged, also through the feed-forward sub-layer.
    """

    def __init__(
        self,
        width: int,
        num_heads: int = 32,
        head_width: int = 128,
        num_key_value_heads: int = 8,
        feed_forward_factor: float = 3.5,
        norm_eps: float = 1e-5,
    ) -> None:
        norm, head_norm = partial(nn.RMSNorm, eps=norm_eps), partial(HeadNorm, eps=norm_eps)
        super().__init__(
            CrossAttention(width, num_heads, head_width, num_key_value_heads, norm=norm, head_norm=head_norm),
            nn.Sequential(norm(width), SwiGLU(width, int(feed_forward_factor * width))),
        )

    def think(self, x: Tensor, visible: Tensor) -> Tensor:
        sees_anything = visible.any(-1, keepdim=True)
        return self.feed_forward(x).masked_fill(~sees_anything, 0.0)
