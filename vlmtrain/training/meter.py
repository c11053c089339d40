"""Sums on the device between two log lines, so that measuring waits for nothing."""

import time

import torch
from accelerate import Accelerator
from torch import Tensor

from vlmtrain.training.update import UpdateResult

TRUNCATED = "truncated_texts"


class Meter:
    """Averages of losses and metrics, and speeds, over the steps since the last reading."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._metrics: dict[str, tuple[Tensor | int, Tensor | int]] = {}
        self._steps = self._skipped = self._samples = self._truncated = 0
        self._learning_rate = self._waited = self._paused = 0.0
        self._since = time.perf_counter()

    def add(self, result: UpdateResult, samples: int, waited: float, truncated: int = 0) -> None:
        """Count a step with `samples` samples over all ranks that waited `waited` seconds for data.

        `truncated` of this rank's texts were cut to their layout's limit.
        """
        terms = {f"loss/{term}": share for term, share in result.shares.items()}
        for name, share in {"loss": result.loss(), **terms}.items():
            self._sums[name] = self._sums[name] + share if name in self._sums else share.clone()
        norm = result.gradient_norm.detach()
        self._sums["gradient_norm"] = self._sums["gradient_norm"] + norm if "gradient_norm" in self._sums else norm
        for name, (total, count) in result.metrics.items():
            before = self._metrics.get(name, (0, 0))
            self._metrics[name] = (before[0] + total, before[1] + count)
        self._steps += 1
        self._skipped += not result.is_applied
        self._samples += samples
        self._truncated += truncated
        self._learning_rate = result.learning_rate
        self._waited += waited

    def pause(self, seconds: float) -> None:
        """Leave out time that went into something else than training."""
        self._paused += seconds

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Averages over all ranks since the last reading; all ranks must call.

        loss, loss/<term>, gradient_norm, the objective's metrics, learning_rate, samples_per_second, data_wait (share
        of the time spent waiting for data, 0 to 1), skipped_steps, truncated_texts (how many lost words to the limit).
        """
        if self._steps == 0:
            return {}
        seconds = max(time.perf_counter() - self._since - self._paused, 1e-9)
        values = _sum_over_ranks(accelerator, self._sums)
        norm = values.pop("gradient_norm") / accelerator.num_processes
        read = {name: value / self._steps for name, value in values.items()}
        read["gradient_norm"] = norm / self._steps
        totals = _sum_over_ranks(
            accelerator, {TRUNCATED: self._truncated, **{name: pair[0] for name, pair in self._metrics.items()}}
        )
        truncated = totals.pop(TRUNCATED)
        counts = _sum_over_ranks(accelerator, {name: pair[1] for name, pair in self._metrics.items()})
        read.update({name: totals[name] / counts[name] for name in totals if counts[name]})
        read["learning_rate"] = self._learning_rate
        read["samples_per_second"] = self._samples / seconds
        read["data_wait"] = min(1.0, self._waited / seconds)
        read["skipped_steps"] = float(self._skipped)
        read[TRUNCATED] = truncated
        self._reset()
        return read


def _sum_over_ranks(accelerator: Accelerator, values: dict[str, Tensor | int] | dict[str, Tensor]) -> dict[str, float]:
    if not values:
        return {}
    names = sorted(values)
    own = torch.stack([torch.as_tensor(values[name], device=accelerator.device).double().detach() for name in names])
    return dict(zip(names, accelerator.reduce(own, reduction="sum").tolist(), strict=True))
