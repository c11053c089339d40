"""Matching against texts that the model itself makes wrong (ViLTA, Wang et al. 2023, arXiv:2308.16689)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch
from vlmtrain.models.capabilities import MatchesAndPredicts
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.masked_language_modeling import masked_rows
from vlmtrain.objectives.matching import checked_count, evenly_spread, select_rows
from vlmtrain.objectives.negatives import draw_columns
from vlmtrain.objectives.told_words import OnTextsMadeWrong, draw_for_rows, place_of, tell_words


class SynthesizedTexts(OnTextsMadeWrong):
    """Is this the image's text?  Asked of each true pair, and of its image with the text in which one word is wrong.

    The model makes the wrong texts as it learns.  Where a word is hidden (`data.forms.masked.Masked`), another word of
    the same text is put that would fit there but for the image: it is likelier when the image is blank.  So what a word
    means as well as the true one is spared, where the paper takes all that the text makes likely for wrong; and the
    negatives are the right words in the wrong places, which only who knows what belongs together can tell.

    Args:
        weight: of the term; 0 removes it and its compute.
        num_judged: samples of the global batch that are asked about in a step, evenly spread; None: all.  Their mean
            stands for that of all: each costs two passes of image and text together.
    """

    needs = MatchesAndPredicts
    term = "synthesized_texts"

    def __init__(self, weight: float = 1.0, num_judged: int | None = None) -> None:
        super().__init__(weight)
        self.num_judged = checked_count(num_judged)

    def compute(self, model: nn.Module, context: Context) -> Loss:
        text, judge = context.batch.text, cast(MatchesAndPredicts, model)
        start, total = place_of(context)
        wrong, is_wrong = synthesize(
            text, masked_rows(context.batch), tell_words(judge, context), draw_for_rows(context)
        )
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


@torch.no_grad()
def synthesize(
    text: TextBatch, masked: TextBatch, told: tuple[TargetStates, TargetStates], uniform: Tensor
) -> tuple[TextBatch, Tensor]:
    """The rows of `text`, in each one of the words that `masked` hides replaced by another one of the row that would
    fit but for the image; and whether there was such a word, [B] bool.

    Args:
        told: what the model makes of the hidden positions, in reading order, with the image and without.
        uniform: [B] in [0, 1): which of the words at which of the positions.
    """
    assert masked.targets is not None, "masked_states has read them"
    row, column = (masked.targets != IGNORED_TARGET).nonzero(as_tuple=True)
    seen, blank = (each.head(each.states).float().softmax(-1) for each in told)
    fits = (blank - seen).clamp(min=0)  # [S, vocabulary]
    is_in_text = fits.new_zeros(len(text.input_ids), fits.shape[1])
    is_in_text.scatter_(1, text.input_ids, text.attention_mask.float())
    fits = (fits * is_in_text[row]).scatter(1, told[0].targets.unsqueeze(1), 0.0)  # never what stood there
    of_place = fits.new_zeros(text.input_ids.shape)
    of_place[row, column] = fits.sum(-1)
    is_wrong = of_place.sum(-1) > 0
    position, rest = _drawn(of_place, uniform.to(fits.device))
    place = torch.zeros_like(text.input_ids)
    place[row, column] = torch.arange(len(row), device=row.device)
    ids = text.input_ids.clone()
    if len(row):
        chosen = place.gather(1, position.unsqueeze(1)).squeeze(1)
        words, _ = _drawn(fits[chosen], rest)
        own = torch.arange(len(ids), device=ids.device)
        ids[own, position] = torch.where(is_wrong, words, ids[own, position])
    return TextBatch(ids, text.attention_mask, text.visual_mask), is_wrong


def _drawn(shares: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Column of each row of [R, C], as likely as its share of the row, by inverting at `uniform` [R]; and where within
    its share the number fell, which is as even and can be drawn by once more."""
    shares, uniform = shares.double(), uniform.double()
    columns = draw_columns(shares, uniform)
    reached, share = shares.cumsum(1), shares.gather(1, columns.unsqueeze(1))
    within = uniform.unsqueeze(1) * reached[:, -1:] - (reached.gather(1, columns.unsqueeze(1)) - share)
    return columns, (within / share.clamp(min=torch.finfo(torch.double).tiny)).squeeze(1).clamp(0, 1)
