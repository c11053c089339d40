"""Language modelling on supervised text: captioning, image-grounded generation, instruction answers."""

from typing import cast

from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.models.capabilities import WritesText
from vlmtrain.nn.linear_cross_entropy import linear_cross_entropy_and_hits
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.single_term import SingleTerm
from vlmtrain.objectives.token_weights import EqualTokens, TokenWeighting, total_weight, weights_of_targets


class LanguageModeling(SingleTerm):
    """Cross-entropy of every supervised token.  Causal, prefix and captioning differ in the layout's targets only.

    Args:
        weight: of the term; 0 removes it and its compute.
        label_smoothing: share of the target spread over the vocabulary; BLIP-2's stage 1 uses 0.1.
        weighting: of tokens by the length of their sample; None: all alike.  Weights of sources (`Batch.weights`) hold
            with any.  The loss is the weighted mean over the global batch, token_accuracy the plain one.
    """

    needs = WritesText
    term = "language_modeling"

    def __init__(
        self, weight: float = 1.0, label_smoothing: float = 0.0, weighting: TokenWeighting | None = None
    ) -> None:
        super().__init__(weight)
        self.label_smoothing = label_smoothing
        self.weighting = weighting or EqualTokens()
        self._weights_all = weighting is not None

    def count(self, batch: Batch) -> float:
        return total_weight(batch, self.weighting) if self._weighs(batch) else batch.text.supervised

    def compute(self, model: nn.Module, context: Context) -> Loss:
        states = cast(WritesText, model).target_states(context.features, context.batch.text)
        weights = weights_of_targets(context.batch, self.weighting) if self._weighs(context.batch) else None
        total, hits = linear_cross_entropy_and_hits(states, label_smoothing=self.label_smoothing, weights=weights)
        return Loss({self.term: total}, {"token_accuracy": (hits, len(states.targets))})

    def _weighs(self, batch: Batch) -> bool:
        return self._weights_all or bool(batch.weights)
