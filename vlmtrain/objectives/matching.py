"""Image-text matching (Li et al. 2021, ALBEF, section 3.2; Li et al. 2023, section 3.1)."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import TextBatch
from vlmtrain.models.capabilities import MatchesPairs
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.negative_draws import BySimilarity, NegativeDraw
from vlmtrain.objectives.negatives import NOBODY, Negatives
from vlmtrain.objectives.single_term import SingleTerm


@dataclass(frozen=True)
class JudgedPairs:
    """What one micro-batch judges, on the CPU.  Images stay where they are; texts, being a few ids, travel."""

    image: Tensor  # [R] index in the micro-batch
    text: Tensor  # [R] index in the global batch
    is_match: Tensor  # [R] bool
    share: Tensor  # [R] weight: a sample's pairs weigh 1 together, over all micro-batches


def judged_pairs(negatives: Negatives, judged: Tensor, start: int, size: int) -> JudgedPairs:
    """The pairs whose image stands in start .. start + size: true ones, own image with wrong text, and every text of
    the global batch whose wrong image is here; of the `judged` samples (indices in the global batch).

    Where there is none of all these, the first sample's true pair stands in with weight 0: a forward pass over no pairs
    at all would leave the heads of this rank without gradient, and the other ranks waiting for it.
    """
    share = 1.0 / (1 + (negatives.texts != NOBODY).double() + (negatives.images != NOBODY).double())
    share *= len(share) / len(judged)
    own = judged[(judged >= start) & (judged < start + size)]
    with_text = own[negatives.texts[own] != NOBODY]
    to_here = judged[(negatives.images[judged] >= start) & (negatives.images[judged] < start + size)]
    if len(own) == len(to_here) == 0:
        return JudgedPairs(*(torch.tensor([value]) for value in (0, start, True, 0.0)))
    image = torch.cat([own, with_text, negatives.images[to_here]]) - start
    text = torch.cat([own, negatives.texts[with_text], to_here])
    of_sample = torch.cat([own, with_text, to_here])
    return JudgedPairs(image, text, torch.arange(len(image)) < len(own), share[of_sample].float())


def checked_count(num_judged: int | None) -> int | None:
    """`num_judged` as it is; ValueError where it asks about nobody."""
    if num_judged is not None and num_judged < 1:
        raise ValueError(f"num_judged must be 1 or more, or null for all; got {num_judged}.  weight=0 turns it off")
    return num_judged


def evenly_spread(total: int, num_judged: int | None) -> Tensor:
    """Indices of `num_judged` of `total` samples, evenly spread over them; all for None."""
    count = total if num_judged is None else min(num_judged, total)
    return torch.arange(count) * total // count


class ImageTextMatching(SingleTerm):
    """True pair or not, asked of each true pair, of its image with a wrong text and of its text with a wrong image.

    Wrong partners come from the whole global batch, never the true one nor one with the same words.  A sample for
    which there is none (a batch of one) is asked about its true pair only.

    Args:
        weight: of the term; 0 removes it and its compute.
        negatives: by what they are drawn; None: by the contrastive similarity.
        num_judged: samples of the global batch that are asked about in a step, each with its two wrong partners; None:
            all, as published.  Their mean stands for that of all: each costs three passes of image and text together.
    """

    needs = MatchesPairs
    term = "matching"

    def __init__(
        self,
        weight: float = 1.0,
        negatives: NegativeDraw | None = None,
        num_judged: int | None = None,
    ) -> None:
        super().__init__(weight)
        self.num_judged = checked_count(num_judged)
        self.negatives = BySimilarity() if negatives is None else negatives

    def require(self, model: nn.Module) -> None:
        super().require(model)
        if self.weight:
            self.negatives.require(model)

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return self.negatives.survey(model, context) if self.weight else {}

    def compute(self, model: nn.Module, context: Context) -> Loss:
        everyone = context.everyone
        text = context.batch.text if everyone is None else everyone.text
        negatives = self.negatives.draw(model, context, text)
        judged = evenly_spread(len(text.input_ids), self.num_judged)
        start = 0 if everyone is None else everyone.start
        pairs = judged_pairs(negatives, judged, start, len(context.batch))
        device = text.input_ids.device
        logits = cast(MatchesPairs, model).match(
            context.features, select_rows(text, pairs.text.to(device)), pairs.image.to(device)
        )
        is_match, share = pairs.is_match.to(device), pairs.share.to(device)
        counts = pairs.share > 0  # all but a pair that only stands in
        losses = F.binary_cross_entropy_with_logits(logits.float(), is_match.float(), reduction="none")
        hits = (((logits > 0) == is_match) & counts.to(device)).sum().float()
        return Loss({self.term: (share * losses).sum()}, {"accuracy": (hits, int(counts.sum()))})


def select_rows(text: TextBatch, rows: Tensor) -> TextBatch:
    """The rows of `text` by index [R]; what nobody judges (targets) stays behind."""
    return TextBatch(text.input_ids[rows], text.attention_mask[rows], text.visual_mask[rows])
