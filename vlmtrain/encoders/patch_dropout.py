"""Only some patches of an image, in training (FLIP: Li et al. 2023, arXiv:2212.00794, section 3.1)."""

from typing import Any

import torch
from torch import Tensor, nn

from vlmtrain.encoders.base import VisionEncoder


def drop_patches(encoder: VisionEncoder, share: float) -> VisionEncoder:
    """Gives `encoder` back; while it trains, its blocks read only 1 - `share` of the patches of each image.

    Which, is drawn anew for every image and step; class token and registers stay.  Nothing is drawn in evaluation, nor
    where the encoder is frozen.  Names of parameters stay what they were, so that a stage without dropping can start
    from one with it.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}; give the share of patches to leave out, above 0 and below 1")
    num_patches = encoder.patches_per_tile - int(getattr(encoder, "keep_class_token", False))
    num_kept = max(1, round((1 - share) * num_patches))

    def keep_some(block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not encoder.training:
            return None
        tokens: Tensor = given[0]
        num_before = tokens.shape[1] - num_patches
        drawn = torch.rand(len(tokens), num_patches, device=tokens.device).argsort(dim=1)[:, :num_kept]
        rows = torch.arange(len(tokens), device=tokens.device).unsqueeze(1)
        kept = tokens[rows, num_before + drawn.sort(dim=1).values]
        return torch.cat([tokens[:, :num_before], kept], dim=1), *given[1:]

    encoder.first_block().register_forward_pre_hook(keep_some)
    return encoder
