"""Looks for silent divergence."""

from dataclasses import dataclass

from vlmtrain.training.parity import check_parity
from vlmtrain.training.trainer import Trainer


@dataclass(frozen=True)
class CheckRanks:
    """Every so many steps: do all ranks hold the same weights, to the bit?  If not, training goes back and on."""

    every: int = 50

    def __call__(self, trainer: Trainer) -> None:
        check_parity(trainer.accelerator, trainer.update.engine.replicas(trainer.model))
