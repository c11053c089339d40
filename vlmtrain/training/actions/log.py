"""Tells the averages since the last time."""

from collections.abc import Callable
from dataclasses import dataclass

from vlmtrain.training.trainer import Trainer


@dataclass(frozen=True)
class Log:
    """Every so many steps `write(step, averages)` is called on the first rank; see Meter.read for the names."""

    every: int
    write: Callable[[int, dict[str, float]], None]

    def __call__(self, trainer: Trainer) -> None:
        averages = trainer.meter.read(trainer.accelerator)
        if trainer.accelerator.is_main_process and averages:
            self.write(trainer.progress.step, averages)
