"""Matching against texts that the model itself makes wrong (ViLTA, Wang et al. 2023, arXiv:2308.16689)."""

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch
from vlmtrain.models.capabilities import MatchesAndPredicts
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.masked_language_modeling import masked_rows, masked_states
from vlmtrain.objectives.matching import evenly_spread, select_rows
from vlmtrain.objectives.single_term import SingleTerm


class SynthesizedTexts(SingleTerm):
    """Is this the image's text?  Asked of each true pair, and of its image with the text in which one word is wrong.

    The model makes the wrong texts as it learns: of the hidden words (`data.forms.masked.Masked`), with the image in
    view, one that it is unsure of becomes a word that it takes for likely there and that did not stand there.  So the
    negatives grow harder with the model, and end as what it confuses: the colour of the neighbour.  A word that happens
    to mean the same is taken for wrong, as in the paper.

    Args:
        weight: of the term; 0 removes it and its compute.
        num_judged: samples of the global batch that are asked about in a step, evenly spread; None: all.  Their mean
            stands for that of all: each costs two passes of image and text together.
    """

    needs = MatchesAndPredicts
    term = "synthesized_texts"

    def __init__(self, weight: float = 1.0, num_judged: int | None = None) -> None:
        super().__init__(weight)
        if num_judged is not None and num_judged < 1:
            raise ValueError(f"num_judged must be 1 or more, or null for all; got {num_judged}.  weight=0 turns it off")
        self.num_judged = num_judged

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        """Nothing but that there is one: what is drawn depends on the place in the global batch."""
        rows = context.batch.text.input_ids
        return {"presence": torch.ones(len(rows), device=rows.device)} if self.weight else {}

    def compute(self, model: nn.Module, context: Context) -> Loss:
        text, judge = context.batch.text, cast(MatchesAndPredicts, model)
        start, total = _place(context)
        states = masked_states(judge, context)
        uniform = _uniform(total, context.batch.seed)[start : start + len(context.batch)]
        wrong, is_wrong = synthesize(text, masked_rows(context.batch), _detached(states), uniform)
        judged = evenly_spread(total, self.num_judged)
        own = judged[(judged >= start) & (judged < start + len(context.batch))] - start
        share = total / len(judged) if len(own) else 0.0
        # where none is judged, one is read all the same: without gradient, this rank's heads would keep others waiting
        rows = (own if len(own) else torch.zeros(1, dtype=torch.long)).to(text.input_ids.device)
        true_logits = judge.match(context.features, select_rows(text, rows), rows).float()
        wrong_logits = judge.match(context.features, select_rows(wrong, rows), rows).float()
        is_wrong = is_wrong[rows]
        losses = (F.softplus(-true_logits) + is_wrong * F.softplus(wrong_logits)) / 2
        hits = (true_logits > 0).sum() + ((wrong_logits <= 0) & is_wrong).sum()
        asked = len(rows) + is_wrong.sum()
        accuracy: tuple[Tensor, Tensor | int] = (hits.float(), asked) if len(own) else (0 * hits.float(), 0)
        return Loss({self.term: share * losses.sum()}, {"accuracy": accuracy})


def _place(context: Context) -> tuple[int, int]:
    """Of this micro-batch's first sample in the global batch, and how many that has."""
    everyone = context.everyone
    return (0, len(context.batch)) if everyone is None else (everyone.start, len(everyone.text.input_ids))


def _uniform(total: int, seed: int) -> Tensor:
    """Two numbers in [0, 1) for every sample of the global batch: [G, 2]."""
    return torch.rand(total, 2, generator=torch.Generator().manual_seed(seed ^ 2))  # not the numbers of other draws


@torch.no_grad()
def synthesize(text: TextBatch, masked: TextBatch, states: TargetStates, uniform: Tensor) -> tuple[TextBatch, Tensor]:
    """The rows of `text`, in each one of the words that `masked` hides replaced by a likely wrong one; and whether
    there was one, [B] bool.

    Args:
        states: what the model makes of the hidden positions, in reading order.
        uniform: [B, 2] in [0, 1): which position of the row, which word.
    """
    assert masked.targets is not None, "masked_states has read them"
    row, column = (masked.targets != IGNORED_TARGET).nonzero(as_tuple=True)
    chances = states.head(states.states).float().softmax(-1)
    chances = chances.scatter(1, states.targets.unsqueeze(1), 0.0)  # never what stood there
    doubt = masked.targets.new_zeros(masked.targets.shape, dtype=torch.float)
    doubt[row, column] = chances.sum(-1).clamp(min=torch.finfo(torch.float).tiny)
    uniform = uniform.to(doubt.device)
    position = _drawn(doubt, uniform[:, 0])  # [B]
    place = torch.full_like(masked.targets, -1)
    place[row, column] = torch.arange(len(row), device=row.device)
    of_row = place.gather(1, position.unsqueeze(1)).squeeze(1)  # [B], -1: nothing of this row is hidden
    hides = of_row >= 0
    words = _drawn(chances[of_row[hides]], uniform[hides, 1])
    ids = text.input_ids.clone()
    ids[hides.nonzero().squeeze(1), position[hides]] = words
    return TextBatch(ids, text.attention_mask, text.visual_mask), hides


def _drawn(shares: Tensor, uniform: Tensor) -> Tensor:
    """Column of each row of [R, C], as likely as its share of the row, by inverting at `uniform` [R]: [R]."""
    reached = shares.double().cumsum(1)
    columns = torch.searchsorted(reached, uniform.double().unsqueeze(1) * reached[:, -1:], right=True).squeeze(1)
    last = torch.where(shares > 0, torch.arange(shares.shape[1], device=shares.device), 0).amax(1)
    return torch.minimum(columns, last)  # rounding at the very end must draw nothing of no share


def _detached(states: TargetStates) -> TargetStates:
    return replace(states, states=states.states.detach())
