"""What a tracker is told about a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class RunInfo:
    """What a tracker needs to know before the first row."""

    name: str  # "blip2_opt/2026-01-31_12-00-00": the same for a resumed run
    folder: Path  # the run folder
    config: Mapping[str, Any]  # plain and resolved; holds no secrets


@dataclass(frozen=True)
class Row:
    """Metrics of one step of one stage.

    `metrics` depend on seed, data and code alone; what differs from run to run (seconds, samples/s, memory) is
    `timing`.  `kind` tells rows of the same step apart: "train", "evaluation".
    """

    stage: str
    step: int
    metrics: Mapping[str, float]
    timing: Mapping[str, float] = field(default_factory=dict)
    kind: str = "train"


@runtime_checkable
class Tracker(Protocol):
    """Shows a run somewhere.  `metrics.jsonl` is the truth; a tracker may fail without harm (see Background)."""

    def start(self, run: RunInfo) -> None: ...
    def log(self, row: Row) -> None: ...
    def image(self, stage: str, step: int, path: Path) -> None: ...
    def finish(self) -> None: ...
