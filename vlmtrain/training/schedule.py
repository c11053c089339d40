"""The learning rate as a pure function of the step, so that nothing of it has to be saved."""

import math
from dataclasses import dataclass
from typing import Literal

from vlmtrain.training.duration import steps_of

Shape = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `lr` in `warmup` steps, then down to `min_lr`, which the last step has.

    Steps count optimizer steps from 0.  The first step of a warm-up has `lr / warmup`, its last one `lr`.
    """

    lr: float
    max_steps: int
    min_lr: float = 0.0
    warmup: int | str = 0
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        if self.shape not in ("cosine", "linear", "constant"):
            raise ValueError(f"schedule {self.shape!r} is unknown; use cosine, linear or constant")
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"min_lr is {self.min_lr} and lr {self.lr}; min_lr must lie between 0 and lr")
        steps_of(self.warmup, self.max_steps)

    def learning_rate(self, step: int) -> float:
        """The rate of optimizer step `step`, for a part whose multiple is 1."""
        warmup = steps_of(self.warmup, self.max_steps)
        if step < warmup:
            return self.lr * (step + 1) / warmup
        if self.shape == "constant":
            return self.lr
        # The peak is held by the last warm-up step, or, without warm-up, by the first step.
        first = max(warmup - 1, 0)
        done = min(1.0, (step - first) / max(1, self.max_steps - 1 - first))
        share = 0.5 * (1 + math.cos(math.pi * done)) if self.shape == "cosine" else 1 - done
        return self.min_lr + (self.lr - self.min_lr) * share
