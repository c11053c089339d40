"""The objective's own terms on held-out records, with the right images and with swapped ones."""

from collections import defaultdict
from typing import Any, cast

from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.evaluation.base import EvaluationResult, EvaluationTools, require_capability
from vlmtrain.evaluation.by_split import BySplit
from vlmtrain.evaluation.swapping import swap_batch_images
from vlmtrain.models.capabilities import Trainable
from vlmtrain.objectives.base import Context, Objective


class HeldOutLoss(BySplit):
    """Mean of every term of the stage's objective on `split` (None: on every split of the data).

    `<split>/<term>` and the weighted sum `<split>/loss`; with `swapped` also `<split>/swapped_loss`, where every sample
    has its neighbour's image: what the image is worth to the loss is the difference.  Contrastive terms depend on the
    batch size of the evaluation, so compare them only between runs with the same one.
    """

    nothing = "The split %r holds no records to measure the loss of."

    def __init__(self, split: str | None = None, limit: int | None = None, swapped: bool = True) -> None:
        super().__init__(None if split is None else [split], limit)
        self.swapped = swapped

    def check_model(self, model: nn.Module) -> None:
        require_capability("HeldOutLoss", model, Trainable, "Leave the evaluation out.")

    def measure(self, model: nn.Module, source: Any, tools: EvaluationTools, split: str) -> EvaluationResult:
        if tools.objective is None:
            raise ValueError("HeldOutLoss needs the stage's objective: give EvaluationTools one.")
        right, swapped = _Means(tools.objective), _Means(tools.objective)
        for _, batch in tools.batches(source, self.limit, False):
            batch = batch.to(tools.device)
            right.add(model, batch)
            other = swap_batch_images(batch) if self.swapped else None
            if other is not None:
                swapped.add(model, other)
        if not right.counts:
            return EvaluationResult({})
        means = right.terms() | {"loss": right.loss()}
        return EvaluationResult(means | ({"swapped_loss": swapped.loss()} if swapped.counts else {}))


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
