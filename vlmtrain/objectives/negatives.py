"""Drawing wrong partners for true pairs, alike on every rank that knows the whole global batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vlmtrain.batch import TextBatch

NOBODY = -1


@dataclass(frozen=True)
class Negatives:
    """For each pair of the global batch its wrong partners, on the CPU; NOBODY where every other pair says the same."""

    texts: Tensor  # [G] a text that does not describe image g
    images: Tensor  # [G] an image that text g does not describe


class Affinity(Protocol):
    """How likely partners are to be drawn, as logits, some rows of the global batch at a time."""

    def of_images(self, rows: slice) -> Tensor:
        """Of these images with all texts: [R, G]; equal ones draw uniformly."""

    def of_texts(self, rows: slice) -> Tensor:
        """Of these texts with all images: [R, G]."""


def kinds_of(text: TextBatch) -> Tensor:
    """[G] on the CPU, equal numbers for rows that say the same.  A repeated caption may well be true of the other
    image."""
    unpadded = text.input_ids.masked_fill(~text.attention_mask, -1)
    _, kinds = torch.unique(unpadded, dim=0, return_inverse=True)
    return kinds.cpu()


def draw_negatives(affinity: Affinity, kinds: Tensor, seed: int) -> Negatives:
    """One wrong text per image and one wrong image per text, likelier the higher their logit.

    Args:
        affinity: of images and texts; asked for stripes, so that nobody holds all pairs.
        kinds: [G], pairs of one kind must not be drawn.
        seed: of the step; equal seeds and logits draw equally on every rank.
    """
    uniform = torch.rand(2, len(kinds), generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return Negatives(_draw(affinity.of_images, kinds, uniform[0]), _draw(affinity.of_texts, kinds, uniform[1]))


def _draw(logits_of: Callable[[slice], Tensor], kinds: Tensor, uniform: Tensor, rows_at_once: int = 256) -> Tensor:
    drawn = []
    for first in range(0, len(kinds), rows_at_once):
        rows = slice(first, first + rows_at_once)
        logits = logits_of(rows).detach().float().cpu().masked_fill(kinds[rows, None] == kinds, float("-inf"))
        drawn.append(_draw_rows(logits.double(), uniform[rows]))
    return torch.cat(drawn)


def _draw_rows(logits: Tensor, uniform: Tensor) -> Tensor:
    """Column drawn from the softmax of each row [G, C], by inverting its distribution at `uniform` [G]."""
    possible = logits.isfinite()
    shares = torch.where(possible, (logits - logits.amax(1, keepdim=True)).exp(), 0.0)
    return torch.where(possible.any(1), draw_columns(shares, uniform), NOBODY)


def draw_columns(shares: Tensor, uniform: Tensor) -> Tensor:
    """Column of each row of [R, C] (double), as likely as its share of the row, by inverting at `uniform` [R]: [R]."""
    reached = shares.cumsum(1)
    drawn = torch.searchsorted(reached, (uniform * reached[:, -1]).unsqueeze(1), right=True).squeeze(1)
    # rounding at the very end, and columns of no share, must never be drawn: go to the last that is possible
    columns = torch.arange(shares.shape[1], device=shares.device)
    return torch.minimum(drawn, torch.where(shares > 0, columns, 0).amax(1))
