"""What objectives around another one have in common: what they do not change is the other's."""

from collections.abc import Mapping

from torch import Tensor, nn

from vlmtrain.batch import Batch
from vlmtrain.objectives.base import Context, Loss, Objective


class Around(Objective):
    """Everything as `objective` has it."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    @property
    def has_teacher(self) -> bool:  # type: ignore[override]
        return self.objective.has_teacher

    @property
    def comes_first(self) -> bool:  # type: ignore[override]
        return self.objective.comes_first

    def require(self, model: nn.Module) -> None:
        self.objective.require(model)

    def origins(self) -> set[str]:
        return self.objective.origins()

    def begin(self, step: int) -> None:
        self.objective.begin(step)

    def weights(self) -> dict[str, float]:
        return self.objective.weights()

    def counts(self, batch: Batch) -> Mapping[str, float]:
        return self.objective.counts(batch)

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return self.objective.survey(model, context)

    def teach(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return self.objective.teach(model, context)

    def answer(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return self.objective.answer(model, context)

    def keep(self, taught: dict[str, Tensor], step: int) -> None:
        self.objective.keep(taught, step)

    def forward(self, model: nn.Module, context: Context) -> Loss:
        loss: Loss = self.objective(model, context)
        return loss
