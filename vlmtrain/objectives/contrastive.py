"""Image-text contrastive learning (Radford et al. 2021, figure 3; with several queries Li et al. 2023, section 3.1)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.models.capabilities import EmbedsBoth
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.pair_softmax import OwnPairs, TrueShares
from vlmtrain.objectives.similarity import TEXT, embeddings, named_embeddings, similarity
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
            return Loss({self.term: self._total(scale * cosines)}, retrieval_metrics(cosines, cosines, 0))
        pairs = OwnPairs(images, texts, scale, context.everyone)
        true = TrueShares(pairs.own, len(context.everyone.embeddings[TEXT]), self.label_smoothing, texts.device)
        total, rows, columns = pairs.total(true)
        return Loss({self.term: total}, retrieval_metrics(rows, columns, context.everyone.start))

    def _total(self, logits: Tensor) -> Tensor:
        """Of all pairs, by the logits of all images and texts [B, B]."""
        pair, smoothing = torch.arange(len(logits), device=logits.device), self.label_smoothing
        of_images = F.cross_entropy(logits, pair, reduction="none", label_smoothing=smoothing)
        of_texts = F.cross_entropy(logits.T, pair, reduction="none", label_smoothing=smoothing)
        return ((of_images + of_texts) / 2).sum()


@torch.no_grad()
def retrieval_metrics(rows: Tensor, columns: Tensor, start: int) -> dict[str, tuple[Tensor, Tensor | int]]:
    """How many own images find their text in first place, by cosines [B, G], and texts their image, by [G, B]."""
    pair = torch.arange(start, start + len(rows), device=rows.device)
    return {
        "image_to_text@1": ((rows.argmax(1) == pair).sum().float(), len(rows)),
        "text_to_image@1": ((columns.argmax(0) == pair).sum().float(), len(rows)),
    }
