"""The data that flows through vlmtrain, from the collator to the loss.

Shape letters, used in every comment and docstring of the package:

    B samples in the batch         T text positions               L target positions (= T for causal LMs)
    I visual items (image|video)   N tiles or frames, all items   P patches per tile
    V visual tokens, whole batch   M visual tokens of one sample, padded
    W encoder width                D language-model width         E shared embedding width   Q queries per item
    S supervised positions         G samples of the global batch: all ranks, all micro-batches

Structure (how many, of whom) is plain Python ints; content is tensors.  Structure never needs a device sync.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
from torch import Tensor

IGNORED_TARGET = -100


class MovesToDevice:
    """Gives a dataclass of tensors (and of such dataclasses) a `.to`."""

    def to(self, device: torch.device | str) -> Self:
        """Copy with every tensor on `device`."""

        def move(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=True)
            return value.to(device) if isinstance(value, MovesToDevice) else value

        return replace(self, **{field.name: move(getattr(self, field.name)) for field in fields(self)})  # type: ignore[type-var, arg-type]


@dataclass(frozen=True)
class VisualBatch(MovesToDevice):
    """Pixels of all visual items, packed: an image is one tile, a hi-res image several, a video its frames.

    Tiles of different sizes share one canvas: each lies in the upper left corner, zeros fill the rest.
    """

    pixels: Tensor  # [N, 3, H, W] uint8; the encoder normalises
    tiles_per_item: list[int]  # I numbers that sum to N
    items_per_sample: list[int]  # B numbers that sum to I
    sizes: list[tuple[int, int]] | None = None  # N times height, width of the tile in the canvas's upper left corner

    @property
    def tile_sizes(self) -> list[tuple[int, int]]:
        """Height and width of every tile; without `sizes`, those of the canvas."""
        height, width = self.pixels.shape[-2:]
        return [(height, width)] * len(self.pixels) if self.sizes is None else self.sizes


@dataclass(frozen=True)
class VisualFeatures(MovesToDevice):
    """What an encoder makes of a VisualBatch."""

    patches: Tensor  # [N, P, W]
    tiles_per_item: list[int]
    items_per_sample: list[int]
    patch_mask: Tensor | None = None  # [N, P] bool, False on padding of tiles with fewer patches; None: all are real


@dataclass(frozen=True)
class VisualTokens(MovesToDevice):
    """What a connector makes of VisualFeatures: packed vectors that a language model can read."""

    embeddings: Tensor  # [V, D]
    tokens_per_item: list[int]  # I numbers that sum to V
    items_per_sample: list[int]


@dataclass(frozen=True)
class TextBatch(MovesToDevice):
    """Token rows as a Layout wrote them."""

    input_ids: Tensor  # [B, T]
    attention_mask: Tensor  # [B, T] bool, False on padding
    visual_mask: Tensor  # [B, T] bool, True where the text leaves room for vision
    targets: Tensor | None = None  # [B, L]; targets[:, i] is what logits[:, i] should predict, or IGNORED_TARGET
    placeholders: int = 0  # how many positions visual_mask marks, known without asking the device
    supervised: int = 0  # how many targets are not IGNORED_TARGET, known without asking the device
    truncated: int = 0  # how many rows lost text to the layout's limit
    supervised_per_sample: list[int] = field(
        default_factory=list
    )  # whose they are, in reading order; sums to supervised
    instruction: TextBatch | None = None  # row b: the prompt of sample b for a connector that reads it, in its tokens
    masked: TextBatch | None = None  # row b again with words hidden; targets[:, i] is what stood at position i


@dataclass(frozen=True)
class Batch(MovesToDevice):
    """One micro-batch of one rank."""

    visual: VisualBatch
    text: TextBatch
    seed: int = 0  # key of everything drawn for the *step*: equal in all its micro-batches, on all ranks
    sample_ids: list[str] = field(default_factory=list)  # B names, for logs and post-mortems
    origins: list[str] = field(default_factory=list)  # B names of the sources they come from; empty: there is only one
    weights: list[float] = field(default_factory=list)  # of each sample in the loss; empty: all 1
    quarantined: list[dict[str, str]] = field(default_factory=list)  # broken samples met while reading this batch

    def __len__(self) -> int:
        return len(self.text.input_ids)


@dataclass(frozen=True)
class TargetStates:
    """Hidden states of the supervised positions only, row by row, and the head that turns them into logits."""

    states: Tensor  # [S, D]
    targets: Tensor  # [S]
    head: Callable[[Tensor], Tensor]  # [s, D] -> logits [s, vocabulary]
