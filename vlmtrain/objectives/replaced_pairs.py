"""Image-text matching with one pair a sample, half of them wrong (ViLT, section 3.2; VisualBERT, section 3.2)."""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import TextBatch
from vlmtrain.models.capabilities import MatchesPairs
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.matching import select_rows
from vlmtrain.objectives.negative_draws import Evenly, NegativeDraw
from vlmtrain.objectives.negatives import NOBODY
from vlmtrain.objectives.single_term import SingleTerm


@dataclass(frozen=True)
class Pairs:
    """What is judged: row r of `text` with image `image[r]`."""

    text: TextBatch
    image: Tensor  # [B]
    is_match: Tensor  # [B] bool


class ReplacedPairs(SingleTerm):
    """Is this the image's text?  Of half the samples of the global batch the text is another one's.

    A third of the passes that ImageTextMatching takes.  A sample with whom no other differs in words keeps its text.

    Args:
        weight: of the term; 0 removes it and its compute.
        negatives: by what wrong texts are drawn; None: evenly, as published.
    """

    needs = MatchesPairs
    term = "matching"

    def __init__(self, weight: float = 1.0, negatives: NegativeDraw | None = None) -> None:
        super().__init__(weight)
        self.negatives = Evenly() if negatives is None else negatives

    def require(self, model: nn.Module) -> None:
        super().require(model)
        if self.weight:
            self.negatives.require(model)

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return self.negatives.survey(model, context) if self.weight else {}

    def compute(self, model: nn.Module, context: Context) -> Loss:
        pairs = self.pairs(model, context)
        return self.judge(cast(MatchesPairs, model).match(context.features, pairs.text, pairs.image), pairs.is_match)

    def pairs(self, model: nn.Module, context: Context) -> Pairs:
        """Each image of this micro-batch with a text of the global batch."""
        everyone, device = context.everyone, context.batch.text.input_ids.device
        text = context.batch.text if everyone is None else everyone.text
        chosen = replaced_texts(self.negatives.draw(model, context, text).texts, context.batch.seed)
        start = 0 if everyone is None else everyone.start
        own = torch.arange(start, start + len(context.batch))
        image = torch.arange(len(own), device=device)
        return Pairs(select_rows(text, chosen[own].to(device)), image, (chosen[own] == own).to(device))

    def judge(self, logits: Tensor, is_match: Tensor) -> Loss:
        """The loss of what a model says of `pairs`: [B], [B] bool."""
        total = F.binary_cross_entropy_with_logits(logits.float(), is_match.float(), reduction="sum")
        return Loss({self.term: total}, {"accuracy": (((logits > 0) == is_match).sum().float(), len(logits))})


def replaced_texts(wrong: Tensor, seed: int) -> Tensor:
    """Whose text each of the G images gets: [G], in exactly half of all places (rounded down) one of `wrong`."""
    own = torch.arange(len(wrong))
    order = torch.randperm(len(wrong), generator=torch.Generator().manual_seed(seed ^ 1))  # not the draw's own numbers
    is_replaced = torch.zeros(len(wrong), dtype=torch.bool)
    is_replaced[order[: len(wrong) // 2]] = True
    return torch.where(is_replaced & (wrong != NOBODY), wrong, own)
