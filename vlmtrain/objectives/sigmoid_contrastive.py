"""Every pair of image and text judged by itself (SigLIP: Zhai et al. 2023, arXiv:2303.15343, section 3.2)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlmtrain.models.capabilities import EmbedsBothWithBias
from vlmtrain.objectives.base import Context, Everyone, Loss
from vlmtrain.objectives.similarity import TEXT, VISUAL, embeddings, named_embeddings, similarity
from vlmtrain.objectives.single_term import SingleTerm


class SigmoidContrastive(SingleTerm):
    """Log-likelihood of "yes" for true pairs and of "no" for all others of the global batch, summed over texts and
    averaged over images.

    No softmax runs over the batch, so that the similarities are made and forgotten in chunks of columns: memory grows
    with the global batch, not with its square (section 3.3 of the paper passes the chunks from device to device; here
    the embeddings, which are small, are everywhere).

    Args:
        weight: of the term; 0 removes it and its compute.
        chunk: columns of similarities that are held at once.
    """

    needs = EmbedsBothWithBias
    term = "sigmoid_contrastive"
    comes_first = True

    def __init__(self, weight: float = 1.0, chunk: int = 1024) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"chunk is {chunk}; give 1 or more columns")
        self.weight = weight
        self.chunk = chunk

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return named_embeddings(model, context) if self.weight else {}

    def compute(self, model: nn.Module, context: Context) -> Loss:
        images, texts = embeddings(model, context)
        embedder = cast(EmbedsBothWithBias, model)
        scale, bias = embedder.similarity_scale(), embedder.similarity_bias()
        if context.everyone is None:
            return Loss({self.term: self._total(images, texts, scale, bias, 0)}, self._metrics(images, texts, 0))
        everyone = context.everyone
        total = self._among_everyone(images, texts, scale, bias, everyone)
        return Loss({self.term: total}, self._metrics(images, everyone.embeddings[TEXT], everyone.start))

    def _total(self, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, start: int) -> Tensor:
        """Sum over all pairs; image b's text is number start + b."""
        total = images.new_zeros((), dtype=torch.float32)
        for first in range(0, len(texts), self.chunk):
            some = texts[first : first + self.chunk]
            given = (images, some, scale, bias, start - first)
            total = total + (
                checkpoint(_chunk_total, *given, use_reentrant=False)
                if torch.is_grad_enabled() and len(texts) > self.chunk
                else _chunk_total(*given)
            )
        return total

    def _among_everyone(self, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, everyone: Everyone) -> Tensor:
        """The total of this micro-batch's images with all texts of the global batch.

        Its own texts also meet everybody else's images: those pairs give gradient here and their value there.  Scale
        and bias get theirs from the own images' pairs, which over all micro-batches are all pairs.
        """
        total = self._total(images, everyone.embeddings[TEXT], scale, bias, everyone.start)
        others = self._total(
            texts.unsqueeze(1), everyone.embeddings[VISUAL], scale.detach(), bias.detach(), everyone.start
        )
        return total + others - others.detach()

    @torch.no_grad()
    def _metrics(self, images: Tensor, texts: Tensor, start: int) -> dict[str, tuple[Tensor, Tensor | int]]:
        """How many own images find their text in first place among all."""
        best = torch.full((len(images),), float("-inf"), device=images.device)
        place = torch.zeros(len(images), dtype=torch.long, device=images.device)
        for first in range(0, len(texts), self.chunk):
            highest, column = similarity(images, texts[first : first + self.chunk]).max(dim=1)
            place = torch.where(highest > best, column + first, place)
            best = torch.maximum(best, highest)
        pair = torch.arange(start, start + len(images), device=images.device)
        return {"image_to_text@1": ((place == pair).sum().float(), len(images))}


def _chunk_total(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, shift: int) -> Tensor:
    """Loss of all pairs of [B, Q, E] and [C, E] or, of texts with images, [B, 1, E] and [C, Q, E]; row b's partner is
    column b + shift, if that is one."""
    cosines = similarity(images, texts) if texts.ndim == 2 else similarity(texts, images.squeeze(1)).T
    rows = torch.arange(len(cosines), device=cosines.device)
    columns = torch.arange(cosines.shape[1], device=cosines.device)
    is_pair = columns[None, :] == rows[:, None] + shift
    logits = scale.float() * cosines + bias.float()
    return F.softplus(torch.where(is_pair, -logits, logits)).sum()
