"""Asks where things are in held-out images, and measures how well the boxes that are told overlap the true ones."""

from dataclasses import dataclass

from vlmtrain.evaluation.answering import AnswerVerdict, asked, question_of
from vlmtrain.evaluation.base import RecordLike, SampleOutcome, sum_aspects
from vlmtrain.evaluation.judged_texts import JudgedTexts
from vlmtrain.evaluation.writing import Writing, Written, outcome_of
from vlmtrain.layouts.boxes import Box, read_box

FOUND = 0.5  # from this overlap on a box is found, as referring expressions are judged


class Locating(JudgedTexts):
    """The first question of every record, answered by a box (`vlmtrain.layouts.boxes`).

    A record's `extra["questions"]` have `text` and `box`: left, top, right and bottom in shares of the image.  Metrics
    per split: `located`, how many boxes overlap the true one by a half or more (intersection over union);
    `mean_overlap`, over all questions; `boxes_told`, how many answers are boxes at all; and `control_located`, the same
    as the first with another record's images.

    Args:
        num_places: as those of the data.
        splits: None: all that the data has.
        limit: records per split.
    """

    nothing = "The split %r holds no records to ask about."

    def __init__(
        self, num_places: int = 32, splits: list[str] | None = None, limit: int | None = None, num_samples: int = 12
    ) -> None:
        writing = Writing(_Judge(num_places), limit, max_new_tokens=5, control=True)  # four places, and the end
        super().__init__(writing, splits, num_samples)

    def figures(self, written: list[Written]) -> dict[str, float]:
        metrics = sum_aspects([each.verdict for each in written], "located")
        swapped = [each.control_verdict for each in written if each.control_verdict is not None]
        if swapped:
            metrics["control_located"] = sum_aspects(swapped, "located")["located"]
        return metrics | {"num_questions": float(len(written))}

    def show(self, written: Written, split: str) -> SampleOutcome:
        told = str(asked(written.record)["answer"])
        return outcome_of("locating", split, written, [told], question_of(written.record))


@dataclass(frozen=True)
class _Judge:
    num_places: int

    def __call__(self, text: str, record: RecordLike, /) -> AnswerVerdict:
        sides = asked(record).get("box")
        if sides is None:
            raise ValueError(
                f"Locating needs questions with a box, and that of {record.key!r} has none; choose data=scene_boxes, "
                "or evaluate answers instead."
            )
        told = read_box(text, self.num_places)
        overlap = 0.0 if told is None else told.overlap(Box(*sides))
        reason = "no box" if told is None else f"overlap {overlap:.2f}"
        aspects = {"mean_overlap": (overlap, 1.0), "boxes_told": (float(told is not None), 1.0)}
        return AnswerVerdict(overlap >= FOUND, reason, aspects)
