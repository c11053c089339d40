"""Writes captions of held-out images, has them judged, and checks that the model looked at the image."""

import logging

from vlmtrain.evaluation.base import Judge, SampleOutcome, Verdict, sum_aspects
from vlmtrain.evaluation.judged_texts import JudgedTexts
from vlmtrain.evaluation.writing import Writing, Written, outcome_of

logger = logging.getLogger(__name__)

_CHANCE_SHIFTS = 16


class Captioning(JudgedTexts):
    """Greedy captions of every record of `splits` (None: all that the data has), judged one by one.

    Metrics per split: `caption_accuracy` (the judge calls the whole caption right), one share per aspect of the judge,
    and the same per group of records (`.../held_out_pairs/caption_accuracy`).  Two yardsticks tell what they are worth:

    - `control_*`: each record's image is replaced by its neighbour's in the batch, and what the model writes is judged
      against the original record.  A model that looks at the image falls to chance here.  Pairs of records with the
      very same image are left out.
    - `chance_*`: the true captions that the model wrote, each judged against other records of the split (16 shifts of
      the whole split): what a model gets that writes good captions of the wrong image.
    """

    nothing = "The split %r holds no records to caption."

    def __init__(
        self,
        judge: Judge,
        splits: list[str] | None = None,
        limit: int | None = None,
        max_new_tokens: int = 48,
        control: bool = True,
        num_samples: int = 12,
    ) -> None:
        super().__init__(Writing(judge, limit, max_new_tokens, control), splits, num_samples)

    def show(self, written: Written, split: str) -> SampleOutcome:
        return outcome_of("captioning", split, written, list(written.record.captions))

    def figures(self, written: list[Written]) -> dict[str, float]:
        metrics = sum_aspects([each.verdict for each in written])
        for group in sorted({group for each in written for group in each.verdict.groups}):
            members = [each.verdict for each in written if group in each.verdict.groups]
            metrics |= {f"{group}/{name}": value for name, value in sum_aspects(members).items()}
        if self.writing.control:
            swapped = [each.control_verdict for each in written if each.control_verdict is not None]
            if not swapped:
                logger.warning("No control was possible: it needs batches of two or more different images.")
            metrics |= {f"control_{name}": value for name, value in sum_aspects(swapped).items()}
            metrics |= {f"chance_{name}": value for name, value in sum_aspects(self._mismatch(written)).items()}
        return metrics | {"num_captions": float(len(written))}

    def _mismatch(self, written: list[Written]) -> list[Verdict]:
        """Each written caption judged against up to 16 other records of the split, spread over all of it."""
        step = max(1, (len(written) - 1) // _CHANCE_SHIFTS)
        shifts = range(1, len(written), step)
        return [
            self.writing.judge(written[(row + shift) % len(written)].text, each.record)
            for shift in list(shifts)[:_CHANCE_SHIFTS]
            for row, each in enumerate(written)
            if list(written[(row + shift) % len(written)].record.images) != list(each.record.images)
        ]
