"""What evaluations of generated text share: every record is written about, judged, and written about again with the
images of another record."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.evaluation.base import EvaluationTools, Judge, RecordLike, SampleOutcome, Verdict
from vlmtrain.evaluation.contact_sheet import contact_sheet
from vlmtrain.evaluation.swapping import swap_images
from vlmtrain.models.capabilities import Captions


@dataclass
class Written:
    """What was written for one record, and what was written when it was shown another record's images."""

    record: RecordLike
    text: str
    verdict: Verdict
    control_of: RecordLike | None = None
    control_text: str | None = None
    control_verdict: Verdict | None = None


@dataclass(frozen=True)
class Writing:
    """Greedy text for up to `limit` records; with `control` also for images swapped within the batch.

    Pairs of records with the very same images are no control, and left out of it.
    """

    judge: Judge
    limit: int | None
    max_new_tokens: int
    control: bool

    def of_split(self, model: nn.Module, source: Any, tools: EvaluationTools) -> list[Written]:
        """All records of a split, in its order; within `evaluating`."""
        writer = cast(Captions, model)
        return [
            each
            for records, batch in tools.batches(source, self.limit, True)
            for each in self._of_batch(writer, records, batch, tools)
        ]

    def _of_batch(
        self, model: Captions, records: Sequence[RecordLike], batch: Batch, tools: EvaluationTools
    ) -> list[Written]:
        batch = batch.to(tools.device)

        def write(batch: Batch) -> list[str]:
            token_ids = model.write(model.encode(batch.visual), batch.text, self.max_new_tokens)
            return [tools.layout.read(row) for row in token_ids.tolist()]

        written = [
            Written(record, text, self.judge(text, record)) for record, text in zip(records, write(batch), strict=True)
        ]
        if not self.control or len(records) < 2:
            return written
        visual, givers = swap_images(batch.visual)
        swapped = write(Batch(visual, batch.text, batch.seed, batch.sample_ids))
        for each, text, giver in zip(written, swapped, givers, strict=True):
            if list(records[giver].images) != list(each.record.images):
                each.control_of, each.control_text = records[giver], text
                each.control_verdict = self.judge(text, each.record)
        return written


def outcome_of(task: str, split: str, written: Written, references: list[str], prompt: str = "") -> SampleOutcome:
    """A record as the sample page shows it; several images are put on one sheet."""
    other, control_verdict = written.control_of, written.control_verdict
    return SampleOutcome(
        task=task,
        split=split,
        key=written.record.key,
        image=contact_sheet(written.record.images),
        text=written.text,
        references=references,
        correct=written.verdict.correct,
        reason="" if written.verdict.correct else written.verdict.reason,
        prompt=prompt,
        control_image=None if other is None else contact_sheet(other.images),
        control_text=written.control_text,
        control_correct=None if control_verdict is None else control_verdict.correct,
    )
