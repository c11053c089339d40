"""Which rank holds the others up?  A step takes as long as its slowest rank, and no figure says which it was."""

import time
from typing import Any

import torch
from torch import nn

WORTH_SAYING = 0.005  # seconds a step


class ForwardTime:
    """Seconds that a rank spends in forward passes."""

    def __init__(self, training_step: nn.Module) -> None:
        self._total = self._began = 0.0
        training_step.register_forward_pre_hook(self._begin, prepend=True)
        training_step.register_forward_hook(self._end)

    def read(self) -> float:
        """Since the last reading."""
        seconds, self._total = self._total, 0.0
        return seconds

    @torch.compiler.disable
    def _begin(self, module: nn.Module, arguments: Any) -> None:
        self._began = time.perf_counter()

    @torch.compiler.disable
    def _end(self, module: nn.Module, arguments: Any, given: Any) -> None:
        self._total += time.perf_counter() - self._began


def find_stragglers(seconds: list[float], factor: float) -> list[int]:
    """Ranks whose steps take more than `factor` times as long as the median of the others."""
    found = []
    for rank, own in enumerate(seconds):
        others = sorted(seconds[:rank] + seconds[rank + 1 :])
        if others and own - others[len(others) // 2] > max(WORTH_SAYING, (factor - 1) * others[len(others) // 2]):
            found.append(rank)
    return found
