"""Several objectives over one batch."""

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from vlmtrain.batch import Batch
from vlmtrain.objectives.base import Context, Loss, Objective

Value = TypeVar("Value")


class Mixture(Objective):
    """The weighted sum of named objectives; the encoder has run once by then, whatever their number.

    A term is called by the name given here (`name/term` where an objective has several), a metric `name/metric`.
    """

    def __init__(self, objectives: dict[str, Objective]) -> None:
        super().__init__()
        if not objectives:
            raise ValueError("a mixture needs at least one objective; name some under `objectives`")
        # Random numbers are drawn in the order of the calls, and the survey draws only those of its objectives.
        self.objectives = nn.ModuleDict(dict(sorted(objectives.items(), key=lambda item: not item[1].comes_first)))

    @property
    def has_teacher(self) -> bool:  # type: ignore[override]
        """Whether any of them does."""
        return any(objective.has_teacher for objective in self._items().values())

    def require(self, model: nn.Module) -> None:
        for objective in self._items().values():
            objective.require(model)

    def origins(self) -> set[str]:
        return set().union(*(objective.origins() for objective in self._items().values()))

    def begin(self, step: int) -> None:
        for objective in self._items().values():
            objective.begin(step)

    def weights(self) -> dict[str, float]:
        return {term: weight for name, part in self._items().items() for term, weight in named(name, part.weights())}

    def counts(self, batch: Batch) -> dict[str, float]:
        return {term: count for name, part in self._items().items() for term, count in named(name, part.counts(batch))}

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for objective in self._items().values():
            found |= objective.survey(model, context)
        return found

    def teach(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for objective in self._items().values():
            found |= objective.teach(model, context)
        return found

    def answer(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for objective in self._items().values():
            found |= objective.answer(model, context)
        return found

    def keep(self, taught: dict[str, Tensor], step: int) -> None:
        for objective in self._items().values():
            objective.keep(taught, step)

    def forward(self, model: nn.Module, context: Context) -> Loss:
        totals: dict[str, Tensor] = {}
        metrics: dict[str, tuple[Tensor, Tensor | int]] = {}
        for name, objective in self._items().items():
            loss = objective(model, context)
            totals |= dict(named(name, loss.totals))
            metrics |= {f"{name}/{metric}": value for metric, value in loss.metrics.items()}
        return Loss(totals, metrics)

    def _items(self) -> dict[str, Objective]:
        return dict(self.objectives.items())  # type: ignore[arg-type]


def named(name: str, terms: Mapping[str, Value]) -> list[tuple[str, Value]]:
    """Terms of the objective `name` under the names that they have in the mixture."""
    return [(name if len(terms) == 1 else f"{name}/{term}", value) for term, value in terms.items()]
