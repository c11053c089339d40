"""Image-text contrastive learning (Radford et al. 2021, figure 3; with several queries Li et al. 2023, section 3.1)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.models.capabilities import EmbedsBoth
from vlmtrain.objectives.base import Context, Everyone, Loss
from vlmtrain.objectives.similarity import (
    TEXT,
    VISUAL,
    embeddings,
    named_embeddings,
    similarity,
    similarity_of_everyone,
)
from vlmtrain.objectives.single_term import SingleTerm


class Contrastive(SingleTerm):
    """Each image should find its text among all texts of the global batch, and each text its image.

    An image of several vectors counts by the best of them (BLIP-2); of one, this is CLIP's symmetric InfoNCE.

    Args:
        weight: of the term; 0 removes it and its compute.
        label_smoothing: share of the target spread over the whole batch; BLIP-2 uses 0.1.
    """

    needs = EmbedsBoth
    term = "contrastive"
    comes_first = True

    def __init__(self, weight: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__(weight)
        self.label_smoothing = label_smoothing

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return named_embeddings(model, context) if self.weight else {}

    def compute(self, model: nn.Module, context: Context) -> Loss:
        images, texts = embeddings(model, context)
        scale = cast(EmbedsBoth, model).similarity_scale()
        if context.everyone is None:
            cosines = similarity(images, texts)
            total = self._of_own(scale * cosines, start=0, size=len(cosines)).sum()
            return Loss({self.term: total}, retrieval_metrics(cosines, 0, len(cosines)))
        total = self._among_everyone(images, texts, scale, context.everyone)
        cosines = similarity_of_everyone(context.everyone)
        return Loss({self.term: total}, retrieval_metrics(cosines, context.everyone.start, len(images)))

    def _of_own(self, logits: Tensor, start: int, size: int) -> Tensor:
        """[G, G] logits -> loss of the pairs start .. start + size: [size]."""
        own = slice(start, start + size)
        pair = torch.arange(start, start + size, device=logits.device)
        smoothing = self.label_smoothing
        of_images = F.cross_entropy(logits[own], pair, reduction="none", label_smoothing=smoothing)
        of_texts = F.cross_entropy(logits.T[own], pair, reduction="none", label_smoothing=smoothing)
        return (of_images + of_texts) / 2

    def _among_everyone(self, images: Tensor, texts: Tensor, scale: Tensor, everyone: Everyone) -> Tensor:
        """The total of this micro-batch's pairs.

        The value is that of the pairs.  The gradient is this micro-batch's share of the gradient of the *global*
        loss: an own image also stands in the softmax of every other text.  So the slope of the global loss by each
        similarity is taken without gradient, and multiplied with the similarities of what is ours (Gao et al. 2021,
        GradCache).  Added up over all micro-batches that is the whole gradient, the temperature's included.
        """
        cosines = similarity_of_everyone(everyone)
        with torch.no_grad():
            slope = self._slope(scale * cosines)
            value = self._of_own(scale * cosines, everyone.start, len(images)).sum()
        own = slice(everyone.start, everyone.start + len(images))
        of_images = slope[own] * similarity(images, everyone.embeddings[TEXT])
        of_texts = slope[:, own] * similarity(everyone.embeddings[VISUAL], texts)
        surrogate = scale.detach() * (of_images.sum() + of_texts.sum()) + scale * (slope[own] * cosines[own]).sum()
        return value + surrogate - surrogate.detach()

    def _slope(self, logits: Tensor) -> Tensor:
        """Derivative of the global total by each logit: [G, G]."""
        target = torch.full_like(logits, self.label_smoothing / len(logits))
        target.diagonal().add_(1 - self.label_smoothing)
        return (logits.softmax(1) + logits.softmax(0)) / 2 - target


@torch.no_grad()
def retrieval_metrics(cosines: Tensor, start: int, size: int) -> dict[str, tuple[Tensor, Tensor | int]]:
    """How many own images find their text in first place among [G, G], and texts their image."""
    own = slice(start, start + size)
    pair = torch.arange(start, start + size, device=cosines.device)
    return {
        "image_to_text@1": ((cosines[own].argmax(1) == pair).sum().float(), size),
        "text_to_image@1": ((cosines[:, own].argmax(0) == pair).sum().float(), size),
    }
