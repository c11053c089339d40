"""Matching against texts with two words exchanged (NegCLIP, Yuksekgonul et al. 2022, arXiv:2210.01936, section 4), and
telling which words they are (replaced-token detection: ELECTRA, Clark et al. 2020, arXiv:2003.10555, section 2)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET, TargetStates, TextBatch
from vlmtrain.models.capabilities import JudgedWords, JudgesWords
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.masked_language_modeling import masked_rows
from vlmtrain.objectives.negatives import draw_columns
from vlmtrain.objectives.told_words import OnTextsMadeWrong, draw_for_rows, tell_words

LEAST_LIKELY = 0.05  # of a word that would fit but for the image
LEAST_SEEN = 0.3  # of the true word once the image is seen: less says that nothing was seen yet


class SwappedWords(OnTextsMadeWrong):
    """Is this the image's text, and which of its words are wrong?  Asked of each true text, and of the same text with
    two words exchanged.

    Both texts have the same words, so that knowing what is in the image does not tell them apart: only who knows what
    belongs together can.  Which two are exchanged, the model says as it learns: a hidden word
    (`data.forms.masked.Masked`) and another one of the text that would fit in its place where the image is blank, and
    becomes half as likely or less once it is seen.  Words that mean the same are spared so; and no word is exchanged
    before the image tells the model what it is.  (NegCLIP exchanges words of one part of speech.)

    The loss of a text is the negative log-likelihood of what is asked: of the pair, and `word_weight` times that of its
    words, summed.  A true text and its wrong one count half each.

    Args:
        weight: of the term; 0 removes it and its compute.
        word_weight: of what is asked of the words.
    """

    needs = JudgesWords
    term = "swapped_words"

    def __init__(self, weight: float = 1.0, word_weight: float = 1.0) -> None:
        super().__init__(weight)
        self.word_weight = word_weight

    def compute(self, model: nn.Module, context: Context) -> Loss:
        text, judge = context.batch.text, cast(JudgesWords, model)
        told = tell_words(judge, context)
        swapped, is_wrong = swap_words(text, masked_rows(context.batch), told, draw_for_rows(context))
        rows = torch.arange(len(text.input_ids), device=text.input_ids.device)
        true = judge.judge_words(context.features, text, rows)
        wrong = judge.judge_words(context.features, swapped, rows)
        is_swapped = is_wrong.any(1)
        losses = (self._loss(true, torch.zeros_like(is_wrong)) + is_swapped * self._loss(wrong, is_wrong)) / 2
        hits = (true.pairs > 0).sum() + ((wrong.pairs <= 0) & is_swapped).sum()
        found = ((wrong.words <= 0) & is_wrong).sum()
        return Loss(
            {self.term: losses.sum()},
            {
                "accuracy": (hits.float(), len(rows) + is_swapped.sum()),
                "words_found": (found.float(), is_wrong.sum()),
                "swapped": (is_swapped.sum().float(), len(rows)),
            },
        )

    def _loss(self, judged: JudgedWords, is_wrong: Tensor) -> Tensor:
        """Of each row, given which of its words are wrong [R, T]: [R]."""
        words, pairs = judged.words.float(), judged.pairs.float()
        of_words = F.binary_cross_entropy_with_logits(words, 1.0 - is_wrong.float(), reduction="none")
        of_pairs = F.binary_cross_entropy_with_logits(pairs, 1.0 - is_wrong.any(1).float(), reduction="none")
        return of_pairs + self.word_weight * (of_words * judged.word_mask).sum(1)


@torch.no_grad()
def swap_words(
    text: TextBatch, masked: TextBatch, told: tuple[TargetStates, TargetStates], uniform: Tensor
) -> tuple[TextBatch, Tensor]:
    """The rows of `text`, in each one of the words that `masked` hides exchanged for another one of the row that would
    fit there but for the image; and where the two stand, [B, T] bool.

    Args:
        told: what the model makes of the hidden positions, in reading order, with the image and without.
        uniform: [B] in [0, 1): which two.
    """
    ids, length = text.input_ids.clone(), text.input_ids.shape[1]
    fits = _fit(text, masked, told).flatten(1).double()  # [B, T * T]
    pair = draw_columns(fits, uniform.to(fits))
    can, own = fits.sum(1) > 0, torch.arange(len(ids), device=ids.device)
    is_wrong = torch.zeros_like(text.attention_mask)
    one, other = pair // length, pair % length
    for place, source in ((one, other), (other, one)):
        ids[own, place] = torch.where(can, text.input_ids[own, source], ids[own, place])
        is_wrong[own, place] |= can
    return TextBatch(ids, text.attention_mask, text.visual_mask), is_wrong


def _fit(text: TextBatch, masked: TextBatch, told: tuple[TargetStates, TargetStates]) -> Tensor:
    """[B, T, T]: how likely the word of place j is at i without the image, if i is hidden and the image halves it."""
    assert masked.targets is not None, "masked_states has read them"
    row, column = (masked.targets != IGNORED_TARGET).nonzero(as_tuple=True)
    others = text.input_ids[row]  # [S, T]
    true = told[0].targets.unsqueeze(1)
    seen, blank = (each.head(each.states).float().softmax(-1) for each in told)
    may = text.attention_mask[row] & (others != true) & (seen.gather(1, true) >= LEAST_SEEN)
    seen, blank = seen.gather(1, others), blank.gather(1, others)
    fits = blank.new_zeros(*text.input_ids.shape, text.input_ids.shape[1])
    fits[row, column] = blank * (may & (blank >= LEAST_LIKELY) & (2 * seen < blank))
    return fits
