"""Names ranks that the others wait for."""

import json
import logging

import torch

from vlmtrain.training.stragglers import ForwardTime, find_stragglers
from vlmtrain.training.trainer import Trainer

logger = logging.getLogger(__name__)

FACTOR = 2.0


class FindStragglers:
    """Warns of ranks whose own work takes twice as long as that of the others, in two looks in a row.

    Own work is waiting for data and the forward pass.  In the backward pass, waiting for the others hides, and where
    weights are gathered for the forward pass, in that too; a slow machine is slow in all of it.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._forward: ForwardTime | None = None
        self._step = 0
        self._data_seconds = 0.0
        self._before: set[int] = set()
        self._told: set[int] = set()

    def __call__(self, trainer: Trainer) -> None:
        if self._forward is None:  # what was before the first look is not known
            self._forward = ForwardTime(trainer.update.training_step)
        elif trainer.progress.step > self._step:
            own = self._forward.read() + trainer.data_seconds - self._data_seconds
            self._compare(trainer, own / (trainer.progress.step - self._step))
        self._step, self._data_seconds = trainer.progress.step, trainer.data_seconds

    def _compare(self, trainer: Trainer, own: float) -> None:
        accelerator = trainer.accelerator
        everywhere: list[float] = accelerator.gather(torch.tensor([own], device=accelerator.device)).tolist()
        found = set(find_stragglers(everywhere, FACTOR))
        news, self._before = (found & self._before) - self._told, found
        self._told = (self._told | news) & found
        if not news or not accelerator.is_main_process:
            return
        for rank in sorted(news):
            logger.warning(
                "rank %d is slow: %.3f s of its own work a step, the others %s; the others wait for it",
                *(rank, everywhere[rank], ", ".join(f"{s:.3f}" for r, s in enumerate(everywhere[:9]) if r != rank)),
            )
        trainer.logs.mkdir(parents=True, exist_ok=True)
        with (trainer.logs / "stragglers.jsonl").open("a") as file:
            line = {"step": trainer.progress.step, "slow": sorted(news), "seconds": everywhere}
            file.write(json.dumps(line) + "\n")
