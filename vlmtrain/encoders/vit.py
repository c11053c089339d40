"""The native vision transformer (ViT: An Image is Worth 16x16 Words, section 3.1)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.taps import Tap, choose_taps
from vlmtrain.encoders.vit_positions import Grid, Learned1D, Positions
from vlmtrain.nn.checkpointing import Checkpointable
from vlmtrain.nn.initial_std import initial_std

HALF = (0.5, 0.5, 0.5)  # pixels go to [-1, 1], as in ViT


class SelfAttention(nn.Module):
    """Every token attends to every token; nothing is masked."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_query_key_value = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        projected = rearrange(self.to_query_key_value(x), "n t (three h d) -> three n h t d", three=3, h=self.num_heads)
        return projected[0], projected[1], projected[2]

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[N, T, W] -> [N, T, W]; `bias` is added to the scores: [heads, T, T], or with N before it, or None."""
        query, key, value = self._project(x)
        mask = None if bias is None else bias.to(query.dtype)
        mask = mask.unsqueeze(0) if mask is not None and mask.dim() == 3 else mask
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(rearrange(mixed, "n h t d -> n t (h d)"))

    def weights(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Who attends to whom: [N, T, W] -> [N, heads, query, key], rows sum to 1."""
        query, key, _ = self._project(x)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        return (scores if bias is None else scores + bias).softmax(dim=-1)


class Block(nn.Module):
    """Pre-LN residual block: x + attention(norm(x)), then x + mlp(norm(x)) with GELU (T07)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, num_heads)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), bias)
        return x + self.mlp(self.mlp_norm(x))


class VisionTransformer(Checkpointable, VisionEncoder):
    """Patches of `patch_size` pixels, a class token at index 0, and `depth` blocks.

    `tap` chooses the layer whose output is given: -1 the last one, after the final norm; -2 the one before it, without
    norm, as BLIP-2 reads it; a list of layers gives them side by side.  Layers that nobody reads are not built.
    `positions` is a class of `vit_positions`.
    Starts from random weights; `vit_files.pretrained` loads a folder.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        positions: Callable[..., Positions] = Learned1D,
        keep_class_token: bool = True,
        tap: Tap = -1,
    ) -> None:
        super().__init__(HALF, HALF)
        if image_size % patch_size or width % num_heads:
            raise ValueError(
                f"image_size {image_size} must be a multiple of patch_size {patch_size}, "
                f"and width {width} a multiple of num_heads {num_heads}."
            )
        self.taps = choose_taps(tap, depth)
        self.image_size, self.patch_size, self.width = image_size, patch_size, width * len(self.taps.layers)
        self.depth, self.num_heads, self.keep_class_token = depth, num_heads, keep_class_token
        grid = (image_size // patch_size, image_size // patch_size)
        self.patches_per_tile = grid[0] * grid[1] + int(keep_class_token)
        self.patch_projection = self.make_patch_projection(patch_size, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = positions(grid, width, depth, num_heads)
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(self.taps.num_blocks))
        self.norm = nn.LayerNorm(width, eps=1e-6) if self.taps.reads_end else nn.Identity()
        self.initialise()

    def make_patch_projection(self, patch_size: int, width: int) -> nn.Module:
        """Pixels [N, 3, H, W] -> [N, width, H / patch_size, W / patch_size]: one linear layer per patch (T01)."""
        return nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def initialise(self) -> None:
        """Random weights, those of ViT at the width of ViT-Base."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.trunc_normal_(module.weight, std=initial_std(module.weight[0].numel()))
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_token, std=0.02)

    def wrapping_units(self) -> nn.ModuleList:
        return self.blocks

    def resize(self, image_size: int) -> None:
        """Take tiles of another size from now on; positions are interpolated.  Of the same size: nothing changes."""
        if image_size % self.patch_size:
            raise ValueError(f"image_size {image_size} must be a multiple of patch_size {self.patch_size}.")
        side = image_size // self.patch_size
        self.positions = self.positions.resized((side, side))
        self.image_size = image_size
        self.patches_per_tile = side**2 + int(self.keep_class_token)

    def embed_patches(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Normalised pixels [N, 3, H, W] -> tokens [N, 1 + P, W] as the first block reads them, and the patch grid."""
        projected = self.patch_projection(pixels)
        grid = (projected.shape[2], projected.shape[3])
        patches = rearrange(projected, "n w rows columns -> n (rows columns) w")
        tokens = torch.cat([self.class_token.expand(len(patches), -1, -1), patches], dim=1)
        return self.positions.add(tokens, grid), grid

    def encode_tiles(self, pixels: Tensor) -> Tensor:
        x, grid = self.embed_patches(pixels)
        checkpoints = self.is_checkpointed and torch.is_grad_enabled()
        states = {}
        for layer, block in enumerate(self.blocks):
            bias = self.positions.attention_bias(layer, grid)
            x = checkpoint(block, x, bias, use_reentrant=False) if checkpoints else block(x, bias)
            states[layer + 1] = x
        if self.taps.reads_end:
            states[self.depth] = self.norm(x)
        x = self.taps.join(states)
        return x if self.keep_class_token else x[:, 1:]

    @torch.no_grad()
    def attention_maps(self, pixels: Tensor) -> Tensor:
        """Normalised pixels -> who attends to whom in every layer: [layers, N, heads, 1 + P, 1 + P].

        Token 0 is the class token.  A second, explicit computation beside the forward pass, which it does not touch.
        """
        x, grid = self.embed_patches(pixels)
        maps = []
        for layer, module in enumerate(self.blocks):
            assert isinstance(module, Block)
            bias = self.positions.attention_bias(layer, grid)
            maps.append(module.attention.weights(module.attention_norm(x), bias))
            x = module(x, bias)
        return torch.stack(maps)
