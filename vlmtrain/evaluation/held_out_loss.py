"""The objective's own terms on held-out records, with the right images and with swapped ones."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.evaluation.base import EvaluationResult, EvaluationTools, evaluating, pick_source
from vlmtrain.evaluation.swapping import swap_batch_images
from vlmtrain.models.capabilities import Trainable
from vlmtrain.objectives.base import Context, Objective


class HeldOutLoss:
    """Mean of every term of the stage's objective on `split`.

    `<split>/<term>` and the weighted sum `<split>/loss`; with `swapped` also `<split>/swapped_loss`, where every sample
    has its neighbour's image: what the image is worth to the loss is the difference.  Contrastive terms depend on the
    batch size of the evaluation, so compare them only between runs with the same one.
    """

    def __init__(self, split: str, limit: int | None = None, swapped: bool = True) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be 1 or more, or null for all records; got {limit}.")
        self.split = split
        self.limit = limit
        self.swapped = swapped

    def __call__(self, model: nn.Module, sources: Mapping[str, Any], tools: EvaluationTools) -> EvaluationResult:
        if tools.objective is None:
            raise ValueError("HeldOutLoss needs the stage's objective: give EvaluationTools one.")
        right, swapped = _Means(tools.objective), _Means(tools.objective)
        with evaluating(model, tools):
            for _, batch in tools.batches(pick_source(sources, self.split), self.limit, False):
                batch = batch.to(tools.device)
                right.add(model, batch)
                if self.swapped and len(batch) > 1:
                    swapped.add(model, swap_batch_images(batch))
        if not right.counts:
            raise ValueError(f"The split {self.split!r} holds no records: leave it out or add records.")
        metrics = {f"{self.split}/{term}": value for term, value in right.terms().items()}
        metrics[f"{self.split}/loss"] = right.loss()
        if swapped.counts:
            metrics[f"{self.split}/swapped_loss"] = swapped.loss()
        return EvaluationResult(metrics)


class _Means:
    """Sums of terms over batches, divided once at the end."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.totals: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)

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
