"""Softmax over all texts of the global batch for each image, and over all images for each text, in linear memory.

Of the G x G similarities only those that meet something of this micro-batch are ever held; the others are made in
stripes and leave the sum that normalises them.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmtrain.objectives.base import Everyone
from vlmtrain.objectives.similarity import TEXT, VISUAL, similarity


class PairShares(Protocol):
    """What each image gives to each text (its shares sum to 1), and each text to each image: of the own B pairs among
    all G, without gradient.  Rows are own images with all texts [B, G], columns all images with own texts [G, B]."""

    def rows_of_images(self) -> Tensor: ...
    def rows_of_texts(self) -> Tensor: ...
    def columns_of_images(self) -> Tensor: ...
    def columns_of_texts(self) -> Tensor: ...


@dataclass(frozen=True)
class TrueShares:
    """All to the partner, but for `smoothing`, which is spread over everybody."""

    own: slice
    size: int  # G
    smoothing: float
    device: torch.device

    def rows_of_images(self) -> Tensor:
        pairs = torch.arange(self.own.start, self.own.stop, device=self.device)
        return F.one_hot(pairs, self.size) * (1 - self.smoothing) + self.smoothing / self.size

    def rows_of_texts(self) -> Tensor:
        return self.rows_of_images()

    def columns_of_images(self) -> Tensor:
        return self.rows_of_images().T

    def columns_of_texts(self) -> Tensor:
        return self.rows_of_images().T


@dataclass(frozen=True)
class SoftmaxShares:
    """Those that logits say."""

    rows: Tensor  # [B, G] logits
    columns: Tensor  # [G, B]
    of_images: Tensor  # [G] log of the sum of exp over all texts
    of_texts: Tensor  # [G] over all images
    own: slice

    def rows_of_images(self) -> Tensor:
        return (self.rows - self.of_images[self.own, None]).exp()

    def rows_of_texts(self) -> Tensor:
        return (self.rows - self.of_texts).exp()

    def columns_of_images(self) -> Tensor:
        return (self.columns - self.of_images[:, None]).exp()

    def columns_of_texts(self) -> Tensor:
        return (self.columns - self.of_texts[self.own]).exp()


@dataclass(frozen=True)
class Embedded:
    """Images and texts of the whole global batch in one space, and the scale of their similarities."""

    name: str  # of whose they are, in Everyone.once
    images: Tensor  # [G, Q, E]
    texts: Tensor  # [G, E]
    scale: Tensor

    @classmethod
    def by_model(cls, everyone: Everyone, scale: Tensor) -> "Embedded":
        return cls("model", everyone.embeddings[VISUAL], everyone.embeddings[TEXT], scale)

    @torch.no_grad()
    def shares(self, everyone: Everyone, rows: Tensor, columns: Tensor, own: slice) -> SoftmaxShares:
        """By the similarities of the own pairs [B, G] and [G, B]."""
        normalizers = everyone.once(f"normalizers of the {self.name}", self._normalizers)
        return SoftmaxShares(self.scale * rows, self.scale * columns, *normalizers, own)

    def _normalizers(self, rows_at_once: int = 128) -> tuple[Tensor, Tensor]:
        of_images: list[Tensor] = []
        of_texts = torch.full((len(self.texts),), -torch.inf, device=self.texts.device)
        for stripe in self.images.split(rows_at_once):
            logits = self.scale * similarity(stripe, self.texts)
            of_images.append(logits.logsumexp(1))
            of_texts = torch.logaddexp(of_texts, logits.logsumexp(0))
        return torch.cat(of_images), of_texts


@dataclass(frozen=True)
class OwnPairs:
    """Images and texts of this micro-batch, with gradient, among everyone."""

    images: Tensor  # [B, Q, E]
    texts: Tensor  # [B, E]
    scale: Tensor
    everyone: Everyone

    @property
    def own(self) -> slice:
        return slice(self.everyone.start, self.everyone.start + len(self.images))

    def total(self, targets: PairShares) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy of the own pairs, both ways and halved, and their cosines [B, G], [G, B].

        The value is that of the pairs.  The gradient is this micro-batch's share of the gradient of the *global*
        loss: an own image also stands in the softmax of every other text.  So the slope of the global loss by each
        similarity is taken without gradient, and multiplied with the similarities of what is ours (Gao et al. 2021,
        GradCache).  Added up over all micro-batches that is the whole gradient, the temperature's included.
        """
        all_of_us = Embedded.by_model(self.everyone, self.scale.detach())
        rows, columns = similarity(self.images, all_of_us.texts), similarity(all_of_us.images, self.texts)
        with torch.no_grad():
            said = all_of_us.shares(self.everyone, rows, columns, self.own)
            wanted_rows, wanted_columns = targets.rows_of_images(), targets.columns_of_texts()
            value = (
                said.of_images[self.own] - (wanted_rows * said.rows).sum(1)
                + said.of_texts[self.own] - (wanted_columns * said.columns).sum(0)
            ).sum() / 2  # fmt: skip
            of_rows = (said.rows_of_images() + said.rows_of_texts() - wanted_rows - targets.rows_of_texts()) / 2
            of_columns = (
                said.columns_of_images() + said.columns_of_texts() - targets.columns_of_images() - wanted_columns
            ) / 2
        pull = self.scale.detach() * ((of_rows * rows).sum() + (of_columns * columns).sum())
        surrogate = pull + self.scale * (of_rows * rows.detach()).sum()
        return value + surrogate - surrogate.detach(), rows.detach(), columns.detach()
