"""The connector of Idefics2 (Laurencon et al. 2024, "What matters when building vision-language models?").

Unlike Flamingo's it projects first and resamples in the language model's width, with grouped-query attention, RMSNorm
and gated feed-forwards, as the Mistral layers behind it have them; and it makes its tokens per tile.
"""

import torch
from torch import Tensor, nn

from vlmtrain.connectors.masked import MaskedConnector
from vlmtrain.nn.latent_attention import LatentAttention
from vlmtrain.nn.swiglu import SwiGLU

PROJECTION_FACTOR = 3.5  # Mistral-7B's 14336 / 4096, which the projection before the resampler shares
FEED_FORWARD_FACTOR = 4
NORM_EPS = 1e-5  # of the released model


class Idefics2Layer(nn.Module):
    """Latents read [context, latents], then a gated feed-forward; RMSNorm before each."""

    def __init__(self, width: int, num_heads: int, num_key_value_heads: int, head_width: int) -> None:
        super().__init__()
        self.context_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.latent_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.attention = LatentAttention(width, num_heads, head_width, num_key_value_heads)
        self.feed_forward_norm = nn.RMSNorm(width, eps=NORM_EPS)
        self.feed_forward = SwiGLU(width, FEED_FORWARD_FACTOR * width)

    def forward(self, latents: Tensor, context: Tensor, context_mask: Tensor | None) -> Tensor:
        """latents [N, Q, D], context [N, P, D], context_mask [N, P] -> [N, Q, D]"""
        latents = latents + self.attention(self.latent_norm(latents), self.context_norm(context), context_mask)
        return latents + self.feed_forward(self.feed_forward_norm(latents))


class Idefics2Resampler(MaskedConnector):
    """A gated MLP projects the patches, then learned latents read them: a fixed number of visual tokens per tile.

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P; a resampler takes any number.
        language_width: D of the language model, and of the resampler.
        num_latents: Q, visual tokens per tile.
        depth: layers.
        num_heads: of the queries.
        num_key_value_heads: of keys and values; each serves num_heads / num_key_value_heads query heads.
        head_width: of one head.
    """

    def __init__(
        self,
        encoder_width: int,
        patches_per_tile: int,
        language_width: int,
        num_latents: int = 64,
        depth: int = 3,
        num_heads: int = 16,
        num_key_value_heads: int = 4,
        head_width: int = 96,
    ) -> None:
        super().__init__()
        self.tokens_per_tile = num_latents
        self.project = SwiGLU(encoder_width, int(PROJECTION_FACTOR * language_width), language_width)
        # transformers starts from ones, for weights that are loaded after; latents that start equal stay equal
        self.latents = nn.Parameter(torch.randn(num_latents, language_width))
        self.layers = nn.ModuleList(
            Idefics2Layer(language_width, num_heads, num_key_value_heads, head_width) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(language_width, eps=NORM_EPS)

    def wrapping_units(self) -> nn.ModuleList:
        return self.layers

    def connect_tiles(self, patches: Tensor, patch_mask: Tensor | None = None) -> Tensor:
        """patches [N, P, W], patch_mask [N, P] -> [N, Q, D]"""
        context = self.project(patches).to(self.latents.dtype)  # under autocast, back to the norms' precision
        latents = self.latents.expand(len(patches), -1, -1)
        for layer in self.layers:
            latents = layer(latents, context, patch_mask)
        return self.norm(latents)
