"""An objective for the samples of some sources only."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vlmtrain.batch import Batch
from vlmtrain.objectives.around import Around
from vlmtrain.objectives.base import Context, Everyone, Lesson, Loss, Objective
from vlmtrain.selection import select_features, select_rows, select_samples

_IS_OWN = "is of these origins"  # name of the [B] bool that goes along with what is surveyed or taught


class FromOrigins(Around):
    """`objective` on the samples that come from `origins`, as if the batch held no others.

    Everything of it: its terms count those samples only, its partners and its queue are theirs.  A micro-batch that
    holds none is asked with its first sample, whose loss counts nothing: all ranks run the same layers.

    Args:
        objective: any, a mixture too.
        origins: names of parts of the data (`data=mixed`, its `parts`).
    """

    def __init__(self, objective: Objective, origins: Sequence[str]) -> None:
        super().__init__(objective)
        if isinstance(origins, str) or not origins:
            raise ValueError(f"origins is {origins!r}; give a list of names of the data's parts, ['web']")
        self._origins = set(origins)
        self._name = "+".join(sorted(self._origins))

    def origins(self) -> set[str]:
        return self._origins | super().origins()

    def counts(self, batch: Batch) -> Mapping[str, float]:
        own = self._own(batch)
        return super().counts(select_samples(batch, own)) if own else dict.fromkeys(self.weights(), 0.0)

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return self._spread(super().survey(model, self._part(context)), context.batch)

    def teach(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        return self._spread(super().teach(model, self._part(context)), context.batch)

    def answer(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        said = super().answer(model, self._part(context))
        return {self._prefix + name: value for name, value in said.items()}

    def keep(self, taught: dict[str, Tensor], step: int) -> None:
        said = self._said(taught)
        if said:
            is_own = said.pop(_IS_OWN)
            super().keep({name: value[is_own] for name, value in said.items()}, step)

    def forward(self, model: nn.Module, context: Context) -> Loss:
        loss = super().forward(model, self._part(context))
        if self._own(context.batch):
            return loss
        return Loss(
            {term: 0.0 * total for term, total in loss.totals.items()},
            {name: (0.0 * total, 0) for name, (total, _) in loss.metrics.items()},
        )

    @property
    def _prefix(self) -> str:
        """Of the names of what is said: two objectives of the same kind may ask different samples."""
        return f"{self._name}: "

    def _own(self, batch: Batch) -> list[int]:
        if not batch.origins:
            raise ValueError(
                f"an objective is for samples from {self._name}, and those of this batch do not say where they come "
                "from; use data=mixed, or leave FromOrigins out"
            )
        return [sample for sample, origin in enumerate(batch.origins) if origin in self._origins]

    def _part(self, context: Context) -> Context:
        return context.once(self._prefix, lambda: self._select(context))

    def _select(self, context: Context) -> Context:
        own = self._own(context.batch)
        samples = own or [0]
        everyone = None if context.everyone is None or not own else self._among_own(context.everyone)
        lesson = context.lesson
        if lesson is not None:
            embeddings = {name: value[samples] for name, value in self._said(lesson.embeddings).items()}
            lesson = Lesson(lesson.step, embeddings, self._said(lesson.answers))
        features, batch = select_features(context.features, samples), select_samples(context.batch, samples)
        return Context(features, batch, everyone, lesson)

    def _among_own(self, everyone: Everyone) -> Everyone | None:
        """Those of the global batch; None where the objective did not ask for them."""
        said = self._said(everyone.embeddings)
        if not said:
            return None
        is_own = said.pop(_IS_OWN)
        part = everyone.once(
            self._prefix,
            lambda: Everyone(
                {name: value[is_own] for name, value in said.items()},
                select_rows(everyone.text, is_own.nonzero().squeeze(1)),
                0,
            ),
        )
        return replace(part, start=int(is_own[: everyone.start].sum()))

    def _spread(self, said: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """[own samples, ...] each -> [B, ...], and which rows are meant."""
        if not said:
            return {}
        own = self._own(batch)
        device = next(iter(said.values())).device
        spread = {_IS_OWN: torch.zeros(len(batch), dtype=torch.bool, device=device)}
        spread[_IS_OWN][own] = True
        for name, value in said.items():
            spread[name] = value.new_zeros(len(batch), *value.shape[1:])
            spread[name][own or [0]] = value
        return {self._prefix + name: value for name, value in spread.items()}

    def _said(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `_spread` or `answer` said, by its own names."""
        return {
            name.removeprefix(self._prefix): value for name, value in named.items() if name.startswith(self._prefix)
        }


def require_origins(objective: Objective, parts: Collection[str]) -> None:
    """ValueError where `objective` asks for samples that the data, mixed of `parts`, never has."""
    missing = sorted(objective.origins() - set(parts))
    if missing:
        raise ValueError(
            f"an objective is for samples from {', '.join(missing)}, and the data has "
            f"{'the parts ' + ', '.join(parts) if parts else 'no parts (data=mixed has)'}; name some of them in origins"
        )
