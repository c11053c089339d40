"""The objective's own terms on held-out records, with the right images and with swapped ones."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.evaluation.base import EvaluationResult, EvaluationTools, evaluating, pick_sources, require_capability
from vlmtrain.evaluation.swapping import swap_batch_images
from vlmtrain.models.capabilities import Trainable
from vlmtrain.objectives.base import Context, Objective

logger = logging.getLogger(__name__)


class HeldOutLoss:
    """Mean of every term of the stage's objective on `split` (None: on every split of the data).

    `<split>/<term>` and the weighted sum `<split>/loss`; with `swapped` also `<split>/swapped_loss`, where every sample
    has its neighbour's image: what the image is worth to the loss is the difference.  Contrastive terms depend on the
    batch size of the evaluation, so compare them only between runs with the same one.
    """

    def __init__(self, split: str | None = None, limit: int | None = None, swapped: bool = True) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be 1 or more, or null for all records; got {limit}.")
        self.splits = None if split is None else [split]
        self.limit = limit
        self.swapped = swapped

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        require_capability("HeldOutLoss", model, Trainable, "Leave the evaluation out.")
        pick_sources(sources, self.splits)

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult:
        if tools.objective is None:
            raise ValueError("HeldOutLoss needs the stage's objective: give EvaluationTools one.")
        self.check(model, sources)
        metrics: dict[str, float] = {}
        with evaluating(model, tools):
            for split, source in pick_sources(sources, self.splits).items():
                means = self._measure(model, source, tools, tools.objective)
                if not means:
                    logger.warning("The split %r holds no records to measure the loss of.", split)
                metrics |= {f"{split}/{name}": value for name, value in means.items()}
        return EvaluationResult(metrics)

    def _measure(self, model: nn.Module, source: Any, tools: EvaluationTools, objective: Objective) -> dict[str, float]:
        right, swapped = _Means(objective), _Means(objective)
        for _, batch in tools.batches(source, self.limit, False):
            batch = batch.to(tools.device)
            right.add(model, batch)
            other = swap_batch_images(batch) if self.swapped else None
            if other is not None:
                swapped.add(model, other)
        if not right.counts:
            return {}
        means = right.terms() | {"loss": right.loss()}
        return means | ({"swapped_loss": swapped.loss()} if swapped.counts else {})


class _Means:
    """Sums of terms over batches, divided once at the end."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.totals: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, model: nn.Module, batch: Batch) -> None:
        loss = self.objective(model, Context(cast(Trainable, model).encode(batch.visual), batch))
        for term, total in loss.totals.items():
            self.totals[term] += float(total)
        for term, count in self.objective.counts(batch).items():
            self.counts[term] += count

    def terms(self) -> dict[str, float]:
        return {term: self.totals[term] / count for term, count in self.counts.items() if count}

    def loss(self) -> float:
        terms = self.terms()
        return sum(weight * terms[term] for term, weight in self.objective.weights().items() if term in terms)
