"""Where a fault can strike in a training.  Each function sees to it that `strike` is called there, on every step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from accelerate import Accelerator

from vlmtrain.batch import Batch
from vlmtrain.training.actions.evaluate import Evaluate
from vlmtrain.training.actions.log import Log
from vlmtrain.training.files import Files
from vlmtrain.training.state import Progress, TrainingState
from vlmtrain.training.trainer import StepSource, Trainer

Strike = Callable[[Any], Any]


def batch(trainer: Trainer, strike: Strike) -> None:
    """While the step waits for its data."""
    trainer.source = _Source(trainer.source, strike)


def forward(trainer: Trainer, strike: Strike) -> None:
    """Before the forward pass, and so before the operations that all ranks take part in."""
    trainer.update.training_step.register_forward_pre_hook(lambda module, arguments: strike(None))


def second_forward(trainer: Trainer, strike: Strike) -> None:
    """In the forward pass of the second micro-batch of a step."""
    seen: dict[int, int] = {}

    def count(*_: object) -> None:
        seen[trainer.progress.step] = seen.get(trainer.progress.step, 0) + 1
        if seen[trainer.progress.step] == 2:
            strike(None)

    trainer.update.training_step.register_forward_pre_hook(count)


def loss(trainer: Trainer, strike: Strike) -> None:
    """What the forward pass gives."""
    trainer.update.training_step.register_forward_hook(lambda module, arguments, given: strike(given))


def backward(trainer: Trainer, strike: Strike) -> None:
    """In the middle of the backward pass: where the first trained tensor has its gradient."""
    parameter = next(each for each in trainer.model.parameters() if each.requires_grad)
    parameter.register_post_accumulate_grad_hook(lambda tensor: strike(None))


def gradient(trainer: Trainer, strike: Strike) -> None:
    """The gradient of one tensor, before it is shared."""
    parameter = next(each for each in trainer.model.parameters() if each.requires_grad)
    parameter.register_hook(lambda value: strike(value))


def optimizer(trainer: Trainer, strike: Strike) -> None:
    """Between gradient and weights."""
    trainer.update.optimizer.register_step_pre_hook(lambda *_: strike(None))


def after(trainer: Trainer, strike: Strike) -> None:
    """When the step is done, before anything is written."""
    trainer.actions = [_Action(strike), *trainer.actions]


def save(trainer: Trainer, strike: Strike) -> None:
    """While a checkpoint is being written."""
    collect = trainer.checkpoints.files.collect

    def struck(state: TrainingState, progress: Progress, accelerator: Accelerator) -> Files:
        for number, each in enumerate(collect(state, progress, accelerator)):
            yield each
            if number == 0:
                strike(None)

    trainer.checkpoints.files.collect = struck  # type: ignore[method-assign]


def evaluation(trainer: Trainer, strike: Strike) -> None:
    """In an evaluation along the way."""
    trainer.actions = [
        replace(each, evaluate=_before(strike, each.evaluate)) if isinstance(each, Evaluate) else each
        for each in trainer.actions
    ]


def log(trainer: Trainer, strike: Strike) -> None:
    """While trackers are told."""
    trainer.actions = [
        replace(each, write=_before(strike, each.write)) if isinstance(each, Log) else each for each in trainer.actions
    ]


@dataclass(frozen=True)
class _Source:
    source: StepSource
    strike: Strike

    def steps(self, start: int) -> Iterator[list[Batch]]:
        for micro_batches in self.source.steps(start):
            yield self.strike(micro_batches)


@dataclass(frozen=True)
class _Action:
    strike: Strike
    every: int = 1

    def __call__(self, trainer: Trainer) -> None:
        self.strike(None)


def _before(strike: Strike, call: Callable[..., None]) -> Callable[..., None]:
    def struck(*arguments: Any) -> None:
        strike(None)
        call(*arguments)

    return struck
