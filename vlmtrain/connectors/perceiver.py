"""The Perceiver Resampler of Flamingo (Alayrac et al. 2022, section 2.1 and figure 5)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualFeatures, VisualTokens
from vlmtrain.connectors.base import Connector
from vlmtrain.connectors.padding import blank_padding, join_tiles
from vlmtrain.nn.latent_attention import LatentAttention


class PerceiverLayer(nn.Module):
    """Latents read [context, latents], then a feed-forward; LayerNorm before each, no biases in the projections."""

    def __init__(self, width: int, num_heads: int, head_width: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.context_norm = nn.LayerNorm(width)
        self.latent_norm = nn.LayerNorm(width)
        self.attention = LatentAttention(width, num_heads, head_width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.contract = nn.Linear(4 * width, width, bias=False)
        self.activation = activation

    def forward(self, latents: Tensor, context: Tensor, context_mask: Tensor | None) -> Tensor:
        """latents [I, Q, W], context [I, S, W], context_mask [I, S] -> [I, Q, W]"""
        latents = latents + self.attention(self.latent_norm(latents), self.context_norm(context), context_mask)
        return latents + self.contract(self.activation(self.expand(self.feed_forward_norm(latents))))


class PerceiverResampler(Connector):
    """Learned latents read all tiles of an item: a fixed number of visual tokens per item, image or video.

    Works in the encoder's width and projects at the end, where Flamingo leaves the projection to its gated layers.

    Args:
        encoder_width: W, of the patches.
        patches_per_tile: P; a resampler takes any number.
        language_width: D of the language model.
        num_latents: Q, visual tokens per item.
        depth: layers.
        num_heads: of every attention; OpenFlamingo has 8 of 64.
        head_width: of one head.
        max_frames: learned time embeddings; items of more tiles interpolate them.
        activation: of the feed-forward; Flamingo has `vlmtrain.nn.squared_relu.squared_relu`, OpenFlamingo GELU.
    """

    def __init__(  # noqa: PLR0913  the sizes of a published architecture, each a choice of its own
        self,
        encoder_width: int,
        patches_per_tile: int,
        language_width: int,
        num_latents: int = 64,
        depth: int = 6,
        num_heads: int = 8,
        head_width: int = 64,
        max_frames: int = 8,
        activation: Callable[[Tensor], Tensor] = F.gelu,
    ) -> None:
        super().__init__()
        if max_frames < 1:
            raise ValueError(f"max_frames {max_frames}: an image is one frame, so there is at least one.")
        self.tokens_per_tile = num_latents
        self.latents = nn.Parameter(torch.randn(num_latents, encoder_width))
        self.time_embeddings = nn.Parameter(torch.randn(max_frames, encoder_width))
        self.layers = nn.ModuleList(
            PerceiverLayer(encoder_width, num_heads, head_width, activation) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(encoder_width)
        self.project = nn.Linear(encoder_width, language_width)

    def wrapping_units(self) -> nn.ModuleList:
        return self.layers

    def tokens_per_item(self, tiles: int) -> int:
        """The same for an image, its crops and a video."""
        return self.tokens_per_tile

    def connect_tiles(self, patches: Tensor) -> Tensor:
        """Each tile as an image of its own: [N, P, W] -> [N, Q, D]"""
        return self.resample(patches + self.times([1] * len(patches)))

    def forward(self, features: VisualFeatures, text: TextBatch | None = None) -> VisualTokens:
        patches = blank_padding(features.patches, features.patch_mask) + self.times(features.tiles_per_item)
        context = join_tiles(patches, features.patch_mask, features.tiles_per_item)
        return self.pack(self.resample(*context), features)

    def resample(self, context: Tensor, context_mask: Tensor | None = None) -> Tensor:
        """context [I, S, W], context_mask [I, S] -> [I, Q, D]"""
        latents = self.latents.expand(len(context), -1, -1)
        for layer in self.layers:
            latents = layer(latents, context, context_mask)
        return self.project(self.norm(latents))

    def times(self, tiles_per_item: list[int]) -> Tensor:
        """What is added to all patches of a tile for its place in the item: [N, 1, W]"""
        by_length = {tiles: self.times_of(tiles) for tiles in set(tiles_per_item)}
        rows = [self.time_embeddings[:0], *(by_length[tiles] for tiles in tiles_per_item)]
        return torch.cat(rows).unsqueeze(1)

    def times_of(self, tiles: int) -> Tensor:
        """[tiles, W].  Beyond `max_frames` the learned ones are interpolated linearly, first and last staying in place.

        Flamingo goes from 8 frames in training to 30 in evaluation this way.  Written as a sum of shares, because the
        gradient of torch's interpolation adds up in no fixed order on CUDA.
        """
        learned = self.time_embeddings
        if tiles <= len(learned):
            return learned[:tiles]
        places = torch.linspace(0, len(learned) - 1, tiles, device=learned.device).unsqueeze(1)
        shares = (1 - (places - torch.arange(len(learned), device=learned.device)).abs()).clamp(min=0)
        return (shares.to(learned.dtype).unsqueeze(-1) * learned).sum(1)
