"""Writes captions of held-out images, has them judged, and checks that the model looked at the image."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from vlmtrain.evaluation.base import (
    EvaluationResult,
    EvaluationTools,
    Judge,
    SampleOutcome,
    Verdict,
    pick_sources,
    require_capability,
    sum_aspects,
)
from vlmtrain.evaluation.writing import Writing, Written, outcome_of
from vlmtrain.models.capabilities import Captions

logger = logging.getLogger(__name__)

_CHANCE_SHIFTS = 16


class Captioning:
    """Greedy captions of every record of `splits` (None: all that the data has), judged one by one.

    Metrics per split: `caption_accuracy` (the judge calls the whole caption right), one share per aspect of the judge,
    and the same per group of records (`.../held_out_pairs/caption_accuracy`).  Two yardsticks tell what they are worth:

    - `control_*`: each record's image is replaced by its neighbour's in the batch, and what the model writes is judged
      against the original record.  A model that looks at the image falls to chance here.  Pairs of records with the
      very same image are left out.
    - `chance_*`: the true captions that the model wrote, each judged against other records of the split (16 shifts of
      the whole split): what a model gets that writes good captions of the wrong image.
    """

    def __init__(
        self,
        judge: Judge,
        splits: list[str] | None = None,
        limit: int | None = None,
        max_new_tokens: int = 48,
        control: bool = True,
        num_samples: int = 12,
    ) -> None:
        if splits == [] or max_new_tokens < 1 or num_samples < 0 or (limit is not None and limit < 1):
            raise ValueError(
                "Captioning wants at least one split or null for all, limit >= 1 or null, max_new_tokens >= 1 and "
                "num_samples >= 0; "
                f"got splits={splits}, limit={limit}, max_new_tokens={max_new_tokens}, num_samples={num_samples}."
            )
        self.judge = judge
        self.splits = splits
        self.limit = limit
        self.max_new_tokens = max_new_tokens
        self.control = control
        self.num_samples = num_samples

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        require_capability("Captioning", model, Captions, "Evaluate it by retrieval or held-out loss instead.")
        pick_sources(sources, self.splits)

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult:
        self.check(model, sources)
        writing = Writing(self.judge, self.limit, self.max_new_tokens, self.control)
        metrics: dict[str, float] = {}
        samples: list[SampleOutcome] = []
        for split, source in pick_sources(sources, self.splits).items():
            written = writing.of_split(model, source, tools)
            if not written:
                logger.warning("The split %r holds no records to caption.", split)
                continue
            metrics |= {f"{split}/{name}": value for name, value in self._measure(written).items()}
            samples += [
                outcome_of("captioning", split, each, list(each.record.captions))
                for each in written[: self.num_samples]
            ]
        return EvaluationResult(metrics, samples)

    def _measure(self, written: list[Written]) -> dict[str, float]:
        metrics = sum_aspects([each.verdict for each in written])
        for group in sorted({group for each in written for group in each.verdict.groups}):
            members = [each.verdict for each in written if group in each.verdict.groups]
            metrics |= {f"{group}/{name}": value for name, value in sum_aspects(members).items()}
        if self.control:
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
            self.judge(written[(row + shift) % len(written)].text, each.record)
            for shift in list(shifts)[:_CHANCE_SHIFTS]
            for row, each in enumerate(written)
            if list(written[(row + shift) % len(written)].record.images) != list(each.record.images)
        ]
