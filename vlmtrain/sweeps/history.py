"""What the trials of a sweep have shown so far, read from their folders: all that a search or a pruner knows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmtrain.config.sweep import HIGHEST, LOWEST
from vlmtrain.launch.sweep_folder import SweepFolder, Trial
from vlmtrain.tracking.jsonl import read_rows

EVALUATION = "evaluation"
LOW_IS_GOOD = ("loss", "perplexity", "gap", "error")


@dataclass(frozen=True)
class Record:
    """One trial: the values it was given, and step -> value of the metric at each evaluation."""

    number: int
    state: str  # see vlmtrain.launch.sweep_folder
    values: Mapping[str, Any] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)

    @property
    def last(self) -> float | None:
        """The value at the newest evaluation."""
        return self.curve[max(self.curve)] if self.curve else None


def read_history(sweep: SweepFolder, metric: str) -> list[Record]:
    """A record of every trial that has begun, by number."""
    return [_record(trial, metric) for trial in sweep.trials()]


def read_curve(run: Path, metric: str) -> dict[int, float]:
    """Step -> value of <stage>/<metric> in the evaluations of a run, also while it trains."""
    stage, _, name = metric.partition("/")
    rows = [row for row in read_rows(run / "metrics.jsonl") if (row.stage, row.kind) == (stage, EVALUATION)]
    return {row.step: row.metrics[name] for row in rows if name in row.metrics}


def best_is(metric: str, direction: str | None) -> str:
    """Lowest or highest: as the sweep says, else by what the metric is called."""
    if direction is not None:
        return direction
    return LOWEST if any(word in metric.rsplit("/", 1)[-1] for word in LOW_IS_GOOD) else HIGHEST


def _record(trial: Trial, metric: str) -> Record:
    return Record(trial.number, trial.state, trial.values, read_curve(trial.folder, metric))
