"""Asks where things are in held-out images, and measures how well the boxes that are told overlap the true ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from vlmtrain.evaluation.answering import AnswerVerdict, asked
from vlmtrain.evaluation.base import (
    EvaluationResult,
    EvaluationTools,
    RecordLike,
    SampleOutcome,
    pick_sources,
    require_capability,
    sum_aspects,
)
from vlmtrain.evaluation.writing import Writing, Written, outcome_of
from vlmtrain.layouts.boxes import Box, read_box
from vlmtrain.models.capabilities import Captions

FOUND = 0.5  # from this overlap on a box is found, as referring expressions are judged


class Locating:
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

    def __init__(
        self, num_places: int = 32, splits: list[str] | None = None, limit: int | None = None, num_samples: int = 12
    ) -> None:
        if splits == [] or num_samples < 0 or (limit is not None and limit < 1):
            raise ValueError(
                "Locating wants splits or null, limit >= 1 or null and num_samples >= 0; "
                f"got splits={splits}, limit={limit}, num_samples={num_samples}."
            )
        self.splits, self.num_samples = splits, num_samples
        self.writing = Writing(_Judge(num_places), limit, max_new_tokens=5, control=True)  # four places, and the end

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        require_capability("Locating", model, Captions, "Evaluate it by retrieval or held-out loss instead.")
        pick_sources(sources, self.splits)

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult:
        self.check(model, sources)
        metrics: dict[str, float] = {}
        samples: list[SampleOutcome] = []
        for split, source in pick_sources(sources, self.splits).items():
            written = self.writing.of_split(model, source, tools)
            metrics |= {f"{split}/{name}": value for name, value in _measure(written).items()} if written else {}
            samples += [
                outcome_of(
                    "locating", split, each, [str(asked(each.record)["answer"])], str(asked(each.record)["text"])
                )
                for each in written[: self.num_samples]
            ]
        return EvaluationResult(metrics, samples)


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


def _measure(written: list[Written]) -> dict[str, float]:
    metrics = sum_aspects([each.verdict for each in written], "located")
    swapped = [each.control_verdict for each in written if each.control_verdict is not None]
    if swapped:
        metrics["control_located"] = sum_aspects(swapped, "located")["located"]
    return metrics | {"num_questions": float(len(written))}
