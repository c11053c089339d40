"""Masked language modelling on pairs: hidden words are told from the other words and from the image (T57)."""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from vlmtrain.batch import Batch, TargetStates, TextBatch, VisualFeatures
from vlmtrain.models.capabilities import PredictsTokens
from vlmtrain.nn.linear_cross_entropy import linear_cross_entropy_and_hits
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.single_term import SingleTerm
from vlmtrain.objectives.token_weights import EqualTokens, total_weight, weights_of_targets


class MaskedLanguageModeling(SingleTerm):
    """Cross-entropy of the hidden tokens, and of no others (Devlin et al. 2018; ViLT, section 3.3).

    Which words are hidden was decided with the data (`data.forms.masked.Masked`), so that their number is known
    without asking the device, and the texts that other objectives read are whole.

    Args:
        weight: of the term; 0 removes it and its compute.
    """

    needs = PredictsTokens
    term = "masked_language_modeling"

    def count(self, batch: Batch) -> float:
        masked = masked_rows(batch)
        return total_weight(replace(batch, text=masked), EqualTokens()) if batch.weights else masked.supervised

    def compute(self, model: nn.Module, context: Context) -> Loss:
        batch, masked = context.batch, masked_rows(context.batch)
        states = masked_states(cast(PredictsTokens, model), context)
        weights = weights_of_targets(replace(batch, text=masked), EqualTokens()) if batch.weights else None
        total, hits = self.cross_entropy(context, states, weights)
        return Loss({self.term: total}, {"token_accuracy": (hits, len(states.targets))})

    def cross_entropy(self, context: Context, states: TargetStates, weights: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum over the hidden tokens, each times its weight, and how many are found."""
        return linear_cross_entropy_and_hits(states, weights=weights)


def masked_states(model: PredictsTokens, context: Context) -> TargetStates:
    """What `model` makes of the hidden tokens, each row read with its own image; once per micro-batch."""
    return context.once("masked states", lambda: read_masked(model, context.batch, context.features))


def read_masked(model: PredictsTokens, batch: Batch, features: VisualFeatures) -> TargetStates:
    """What `model` makes of the hidden tokens, row b read with image b of `features`."""
    masked = masked_rows(batch)
    return model.hidden_states(features, masked, torch.arange(len(batch), device=masked.input_ids.device))


def masked_rows(batch: Batch) -> TextBatch:
    """The texts with words hidden; ValueError where there are none."""
    if batch.text.masked is None:
        raise ValueError(
            "No word of this batch is hidden: masked language modelling needs the form "
            "vlmtrain.data.forms.masked.Masked around the one that makes the text, and a model whose layout hides "
            "words."
        )
    return batch.text.masked
