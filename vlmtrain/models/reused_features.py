"""Features of one image per sample that remember what a model makes of them."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vlmtrain.batch import VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.models.encode_images import encode_single_images


class _Kept(dict[tuple[str, bool], Any]):
    """A dict that can be pointed at weakly."""


def _forgetting(kept: _Kept) -> Callable[[Tensor], None]:
    """A gradient hook that empties `kept`; weakly, since the graph that holds the hook is held by `kept`."""
    pointer = weakref.ref(kept)

    def forget(_: Tensor) -> None:
        alive = pointer()
        if alive is not None:
            alive.clear()

    return forget


@dataclass(frozen=True)
class ReusedFeatures(VisualFeatures):
    """Patches of one image per sample, and room for what a model makes of them: each at most once per batch."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_kept", _Kept())  # no field: a copy, on another device or not, starts empty

    def once(self, name: str, compute: Callable[[], Any], tensor_of: Callable[[Any], Tensor]) -> Any:
        """`compute()`, remembered until a backward pass has used it up.

        What was computed without gradient (the survey of a step) never stands in where gradient is wanted.
        """
        kept: _Kept = self.__dict__["_kept"]
        key = (name, torch.is_grad_enabled())
        if key not in kept:
            kept[key] = compute()
            tensor = tensor_of(kept[key])
            if tensor.requires_grad:
                tensor.register_hook(_forgetting(kept))
        return kept[key]


def encode_for_reuse(encoder: VisionEncoder, visual: VisualBatch, reader: str) -> ReusedFeatures:
    """`encode_single_images`, with that room."""
    features = encode_single_images(encoder, visual, reader)
    return ReusedFeatures(features.patches, features.tiles_per_item, features.items_per_sample, features.patch_mask)
