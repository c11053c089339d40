"""Language modelling on supervised text: captioning, image-grounded generation, instruction answers."""

from typing import cast

from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.models.capabilities import WritesText
from vlmtrain.nn.linear_cross_entropy import linear_cross_entropy_and_hits
from vlmtrain.objectives.base import Context, Loss, Objective

TERM = "language_modeling"


class LanguageModeling(Objective):
    """Cross-entropy of every supervised token.  Causal, prefix and captioning differ in the layout's targets only.

    Args:
        weight: of the term; 0 removes it and its compute.
        label_smoothing: share of the target spread over the vocabulary; BLIP-2's stage 1 uses 0.1.
    """

    needs = WritesText

    def __init__(self, weight: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.weight = weight
        self.label_smoothing = label_smoothing

    def weights(self) -> dict[str, float]:
        return {TERM: self.weight} if self.weight else {}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {TERM: batch.text.supervised} if self.weight else {}

    def forward(self, model: nn.Module, context: Context) -> Loss:
        if not self.weight:
            return Loss({})
        states = cast(WritesText, model).target_states(context.features, context.batch.text)
        total, hits = linear_cross_entropy_and_hits(states, label_smoothing=self.label_smoothing)
        return Loss({TERM: total}, {"token_accuracy": (hits, len(states.targets))})
