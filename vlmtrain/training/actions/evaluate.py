"""Pauses training to see what was learned."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from vlmtrain.training.trainer import Trainer


@dataclass(frozen=True)
class Evaluate:
    """Calls `evaluate(step)` on all ranks, in eval mode, without gradient, with averaged weights if there are."""

    every: int
    evaluate: Callable[[int], None]

    def __call__(self, trainer: Trainer) -> None:
        average = trainer.update.average
        trainer.update.training_step.eval()
        try:
            averaged = average.applied() if average is not None else nullcontext()
            with trainer.watch.during("evaluation"), torch.no_grad(), averaged:
                self.evaluate(trainer.progress.step)
        finally:
            trainer.update.training_step.train()  # frozen parts stay in eval mode
