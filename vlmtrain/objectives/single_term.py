"""What objectives of one term have in common: its name, its weight, and that weight 0 takes it away."""

from abc import abstractmethod

from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.objectives.base import Context, Loss, Objective


class SingleTerm(Objective):
    """One term of the loss; with weight 0 it has none, is not counted and computes nothing.

    What a subclass does beside `compute` (survey, teach, answer, keep) asks for the weight by itself.

    Args:
        weight: of the term; 0 removes it and its compute.
    """

    term: str

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def weights(self) -> dict[str, float]:
        return {self.term: self.weight} if self.weight else {}

    def counts(self, batch: Batch) -> dict[str, float]:
        return {self.term: self.count(batch)} if self.weight else {}

    def forward(self, model: nn.Module, context: Context) -> Loss:
        return self.compute(model, context) if self.weight else Loss({})

    def count(self, batch: Batch) -> float:
        """How many things the total sums over, or the sum of their weights; the samples if not said otherwise."""
        return len(batch)

    @abstractmethod
    def compute(self, model: nn.Module, context: Context) -> Loss:
        """The total of `term`, and metrics."""
