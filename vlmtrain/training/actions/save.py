"""Publishes checkpoints."""

from dataclasses import dataclass

from vlmtrain.training.trainer import Trainer


@dataclass(frozen=True)
class Save:
    """A checkpoint every so many steps, and of the last step."""

    every: int

    def __call__(self, trainer: Trainer) -> None:
        trainer.save()
