"""What a model makes of hidden words, with the image and without it: how it finds words that only the image decides."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vlmtrain.batch import TargetStates
from vlmtrain.models.capabilities import PredictsTokens
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.masked_language_modeling import masked_states, read_masked
from vlmtrain.objectives.single_term import SingleTerm


class OnTextsMadeWrong(SingleTerm):
    """A term about texts that the model itself makes wrong, of every sample by a number of its place in the global
    batch."""

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        """Nothing but that there is one: what is drawn depends on the place in the global batch."""
        rows = context.batch.text.input_ids
        return {"presence": torch.ones(len(rows), device=rows.device)} if self.weight else {}


def tell_words(model: PredictsTokens, context: Context) -> tuple[TargetStates, TargetStates]:
    """The hidden positions in reading order, read with the image and with a blank one; nothing learns from either."""
    blank = replace(context.features, patches=torch.zeros_like(context.features.patches))
    # with gradient, then cut: under no_grad, autocast would keep weights that later passes cannot train
    return _detached(masked_states(model, context)), _detached(read_masked(model, context.batch, blank))


def place_of(context: Context) -> tuple[int, int]:
    """Of this micro-batch's first sample in the global batch, and how many that has."""
    everyone = context.everyone
    return (0, len(context.batch)) if everyone is None else (everyone.start, len(everyone.text.input_ids))


def draw_for_rows(context: Context) -> Tensor:
    """A number in [0, 1) for every sample of this micro-batch, whatever the cut of the global batch: [B]."""
    start, total = place_of(context)
    generator = torch.Generator().manual_seed(context.batch.seed ^ 2)  # not the numbers of other draws
    return torch.rand(total, generator=generator)[start : start + len(context.batch)]


def _detached(states: TargetStates) -> TargetStates:
    return replace(states, states=states.states.detach())
