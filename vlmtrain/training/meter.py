"""Sums on the device between two log lines, so that measuring waits for nothing."""

import time
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from vlmtrain.training.update import UpdateResult

TRUNCATED = "truncated_texts"
NORM = "gradient_norm"


class Meter:
    """Averages of losses and metrics, and speeds, over the steps since the last reading.

    Summed in double precision, so that what a checkpoint keeps of an open interval goes on to the same last bit.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._metrics: dict[str, tuple[Tensor | float, Tensor | float]] = {}
        self._steps = self._skipped = self._samples = self._truncated = 0
        self._learning_rate = self._waited = self._paused = 0.0
        self._since = time.perf_counter()

    def add(self, result: UpdateResult, samples: int, waited: float, truncated: int = 0) -> None:
        """Count a step with `samples` samples over all ranks that waited `waited` seconds for data.

        `truncated` of this rank's texts were cut to their layout's limit.
        """
        terms = {f"loss/{term}": share for term, share in result.shares.items()}
        for name, share in {"loss": result.loss(), **terms, NORM: result.gradient_norm}.items():
            self._sums[name] = self._sums.get(name, 0.0) + share.detach().double()
        for name, (total, count) in result.metrics.items():
            before = self._metrics.get(name, (0, 0))
            self._metrics[name] = (before[0] + _double(total), before[1] + _double(count))
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
        whole = self.open_interval(accelerator)
        read = {name: value / self._steps for name, value in whole["sums"].items()}
        read.update({name: total / count for name, (total, count) in whole["metrics"].items() if count})
        read["learning_rate"] = self._learning_rate
        read["samples_per_second"] = self._samples / seconds
        read["data_wait"] = min(1.0, self._waited / seconds)
        read["skipped_steps"] = float(self._skipped)
        read[TRUNCATED] = whole["truncated"]
        self._reset()
        return read

    def open_interval(self, accelerator: Accelerator) -> dict[str, Any]:
        """What the steps since the last reading came to, over all ranks, for a checkpoint; all ranks must call."""
        sums = _sum_over_ranks(accelerator, self._sums)
        if NORM in sums:  # every rank holds the norm of the whole gradient
            sums[NORM] /= accelerator.num_processes
        totals = _sum_over_ranks(
            accelerator, {TRUNCATED: self._truncated, **{name: pair[0] for name, pair in self._metrics.items()}}
        )
        truncated = totals.pop(TRUNCATED)
        counts = _sum_over_ranks(accelerator, {name: pair[1] for name, pair in self._metrics.items()})
        return {
            "steps": self._steps,
            "skipped": self._skipped,
            "truncated": truncated,
            "sums": sums,
            "metrics": {name: [totals[name], counts[name]] for name in totals},
        }

    def continue_interval(self, kept: dict[str, Any], accelerator: Accelerator) -> None:
        """Start from what `open_interval` gave, as if the steps had been counted here; speeds are of this process."""
        self._reset()
        if not kept:
            return
        self._steps, self._skipped = kept["steps"], kept["skipped"]
        is_first = accelerator.is_main_process  # holds what all ranks did; the norm is every rank's
        self._truncated = int(kept["truncated"]) if is_first else 0
        for name, value in kept["sums"].items():
            share = value if is_first or name == NORM else 0.0
            self._sums[name] = torch.tensor(share, dtype=torch.double, device=accelerator.device)
        for name, (total, count) in kept["metrics"].items():
            self._metrics[name] = (total, count) if is_first else (0.0, 0.0)


def _double(value: Tensor | float) -> Tensor | float:
    return value.detach().double() if isinstance(value, Tensor) else value


def _sum_over_ranks(
    accelerator: Accelerator, values: dict[str, Tensor | float] | dict[str, Tensor]
) -> dict[str, float]:
    if not values:
        return {}
    names = sorted(values)
    own = torch.stack([torch.as_tensor(values[name], device=accelerator.device).double().detach() for name in names])
    return dict(zip(names, accelerator.reduce(own, reduction="sum").tolist(), strict=True))
