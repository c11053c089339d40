"""By what the loss is multiplied before backward, so that small gradients do not vanish in fp16.

Powers of two, so that scaling and dividing again rounds nothing (Micikevicius et al. 2018, arXiv:1710.03740, section
3.2).  Every rank holds one, and all of them move alike: they are told what the ranks agreed on.
"""

import logging

from vlmtrain.training.engines.base import Engine
from vlmtrain.training.precision import Resolved

logger = logging.getLogger(__name__)

# Engines multiply losses by the number of processes as well, so a thousand of them leave little below 1.  Squares of
# gradients under the largest fit into fp32.
SMALLEST, LARGEST = 2.0**-10, 2.0**32


class LossScale:
    """1 for good: for fp32, and for bf16, which holds numbers as small as fp32 does."""

    value: float = 1.0

    def undo(self, engine: Engine) -> None:
        """Give the gradient of this step, which all micro-batches have added to, its true size."""
        return

    def follow(self, is_finite: bool, step: int) -> bool:
        """Hear whether the gradient of `step` was finite; True: it was not, and at a lower scale it may be."""
        return False

    def state(self) -> dict[str, float]:
        """For a checkpoint, which any JSON reader can read."""
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave; from the start where that is empty, as of a run in another precision."""
        return


class DynamicLossScale(LossScale):
    """Halved by a gradient that is not finite, doubled after `patience` steps in a row whose gradient was.

    Start, factors and patience are those of torch.amp.GradScaler.
    """

    def __init__(self, start: float = 2.0**16, patience: int = 2000) -> None:
        self.start = start
        self.patience = patience
        self.value = start
        self._good_steps = 0

    def undo(self, engine: Engine) -> None:
        engine.divide_gradient(self.value)

    def follow(self, is_finite: bool, step: int) -> bool:
        before = self.value
        self._good_steps = self._good_steps + 1 if is_finite else 0
        if not is_finite:
            self.value = max(before / 2, SMALLEST)
        elif self._good_steps == self.patience:
            self.value, self._good_steps = min(before * 2, LARGEST), 0
        falls = self.value < before
        if falls:
            logger.warning(
                "step %d skipped: its gradient is not finite under loss scale %g, which falls to %g",
                *(step, before, self.value),
            )
        elif self.value > before:
            logger.info("step %d: loss scale rises from %g to %g", step, before, self.value)
        return falls

    def state(self) -> dict[str, float]:
        return {"value": self.value, "good_steps": self._good_steps}

    def restore(self, state: dict[str, float]) -> None:
        self.value = float(state.get("value", self.start))
        self._good_steps = int(state.get("good_steps", 0))


def build_loss_scale(precision: Resolved) -> LossScale:
    """What arithmetic in this precision asks for."""
    return DynamicLossScale() if precision == "fp16" else LossScale()
