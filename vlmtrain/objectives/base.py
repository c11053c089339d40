"""What an objective is, and what it may look at."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualFeatures

Value = TypeVar("Value")


@dataclass(frozen=True)
class Everyone:
    """What all micro-batches of all ranks said in the survey of this step, in sample order; nothing has gradient."""

    embeddings: dict[str, Tensor]  # name -> [G, ...]
    text: TextBatch  # the G rows of the global batch, padded alike
    start: int  # index of this micro-batch's first sample in the global batch
    _memory: dict[str, Any] = field(default_factory=dict)  # goes along through dataclasses.replace

    def once(self, name: str, compute: Callable[[], Value]) -> Value:
        """What all micro-batches of this rank derive alike from everyone, computed by the first; without gradient."""
        if name not in self._memory:
            with torch.no_grad():
                self._memory[name] = compute()
        remembered: Value = self._memory[name]
        return remembered


@dataclass(frozen=True)
class Lesson:
    """What the momentum teacher says of one micro-batch, and when.  Nothing has gradient."""

    step: int
    embeddings: dict[str, Tensor]  # name -> [B, ...]; of the global batch Everyone says them too
    answers: dict[str, Tensor] = field(default_factory=dict)  # name -> of any shape; they go to no other micro-batch


@dataclass(frozen=True)
class Context:
    """One micro-batch as objectives see it.  What two objectives both need is computed once, through `once`."""

    features: VisualFeatures
    batch: Batch
    everyone: Everyone | None = None  # None: this micro-batch is the whole global batch
    lesson: Lesson | None = None  # None: there is no teacher, as in an evaluation
    _memory: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, compute: Callable[[], Value]) -> Value:
        if name not in self._memory:
            self._memory[name] = compute()
        remembered: Value = self._memory[name]
        return remembered


@dataclass(frozen=True)
class Loss:
    """Per term the *sum* over what the term counts (see Objective.counts), with gradient; and metrics for the log.

    A metric is (sum, count): the trainer adds both over micro-batches and ranks and divides once.
    """

    totals: dict[str, Tensor]
    metrics: dict[str, tuple[Tensor, Tensor | int]] = field(default_factory=dict)


class Objective(nn.Module, ABC):
    """What the model should get better at.  Names the capability it needs, so that a wrong pairing fails at once."""

    needs: type  # a Protocol of vlmtrain.models.capabilities
    comes_first: bool = False  # its survey draws random numbers (dropout) that its forward must draw again, in order
    has_teacher: bool = False  # asks the averaged weights of the model first, through `teach`

    def require(self, model: nn.Module) -> None:
        """ValueError naming what `model` lacks."""
        if not isinstance(model, self.needs):
            wanted = [name for name in dir(self.needs) if not name.startswith("_")]
            missing = [name for name in wanted if not hasattr(model, name)]
            raise ValueError(
                f"{type(self).__name__} needs a model with {', '.join(wanted)}; "
                f"{type(model).__name__} lacks {', '.join(missing)}. Choose another model or another objective."
            )

    def origins(self) -> set[str]:
        """Names of the sources of mixed data that it asks for by name."""
        return set()

    def begin(self, step: int) -> None:
        """Hear which optimizer step comes next, before anything else is asked; all ranks hear it."""
        return

    @abstractmethod
    def weights(self) -> dict[str, float]:
        """Term -> its weight in the loss, in the step that has begun."""

    @abstractmethod
    def counts(self, batch: Batch) -> Mapping[str, float]:
        """Term -> how many things its total sums over in `batch`, or the sum of their weights.  Pure Python: no device
        is asked.

        The trainer adds the counts over all micro-batches and ranks first, so that the loss is
        sum_term weight * (global total / global count) however the global batch is cut.
        """

    def survey(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        """What this objective must know of the whole global batch ([B, ...] each).  Most need nothing."""
        return {}

    def teach(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        """What the momentum teacher says of a micro-batch ([B, ...] each): `model` has the averaged weights here, in
        eval mode and without gradient.  Given to `forward` as the context's lesson, and to all other micro-batches."""
        return {}

    def answer(self, model: nn.Module, context: Context) -> dict[str, Tensor]:
        """Like `teach`, but what only this micro-batch's own loss reads, of any shape: it is not sent round."""
        return {}

    def keep(self, taught: dict[str, Tensor], step: int) -> None:
        """Called after every applied step with what `teach` said of the global batch, in sample order and alike on all
        ranks.  What is kept from step to step belongs into persistent buffers, which checkpoints hold."""

    @abstractmethod
    def forward(self, model: nn.Module, context: Context) -> Loss: ...
