"""Drawing wrong partners for true pairs, alike on every rank that knows the whole global batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmtrain.batch import TextBatch

NOBODY = -1


@dataclass(frozen=True)
class Negatives:
    """For each pair of the global batch its wrong partners, on the CPU; NOBODY where every other pair says the same."""

    texts: Tensor  # [G] a text that does not describe image g
    images: Tensor  # [G] an image that text g does not describe


def same_text(text: TextBatch) -> Tensor:
    """[G, G] bool: rows that say the same.  A repeated caption may well be true of the other image."""
    unpadded = text.input_ids.masked_fill(~text.attention_mask, -1)
    _, kind = torch.unique(unpadded, dim=0, return_inverse=True)
    return kind[:, None] == kind[None, :]


def draw_negatives(logits: Tensor, same: Tensor, seed: int) -> Negatives:
    """One wrong text per image and one wrong image per text, likelier the higher their logit.

    Args:
        logits: [G, G], image x text; equal ones draw uniformly.
        same: [G, G] bool, symmetric; pairs that must not be drawn, the diagonal among them.
        seed: of the step; equal seeds and logits draw equally on every rank.
    """
    masked = logits.detach().float().masked_fill(same, float("-inf")).cpu().double()
    uniform = torch.rand(2, len(masked), generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return Negatives(_draw_rows(masked, uniform[0]), _draw_rows(masked.T, uniform[1]))


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
