"""What a run tells while it goes on: metrics.jsonl first, then trackers and the progress line."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from vlmtrain.config.build import build
from vlmtrain.report.progress import StepReport, choose_progress
from vlmtrain.tracking.background import Background
from vlmtrain.tracking.base import Row, RunInfo
from vlmtrain.tracking.jsonl import MetricsFile, read_rows

TIMING = ("samples_per_second", "data_wait")  # differ from run to run
TERM = "loss/"


class Journal:
    """Every process has one; all but the first keep silent."""

    def __init__(self, config: Mapping[str, Any], folder: Path, console: Console) -> None:
        self.is_main_process = os.environ.get("RANK", "0") == "0"
        self.console = console
        self.folder = folder
        self._config = config
        self._stages = list(config["stages"])
        self._file = MetricsFile(folder / "metrics.jsonl")
        self._trackers = [Background(tracker) for tracker in build(config["tracker"] or {}).values()]
        self._progress = choose_progress(console, self.is_main_process)
        self._told: dict[tuple[str, str], int] = {}  # stage and kind -> newest step
        self._max_steps = 0
        self._since = time.monotonic()

    def start(self) -> None:
        """Tell the trackers that a run begins or goes on."""
        if self.is_main_process:
            info = RunInfo(f"{self._config['experiment']}/{self.folder.name}", self.folder, self._config)
            for tracker in self._trackers:
                tracker.start(info)

    def start_stage(self, name: str, first_step: int, max_steps: int) -> None:
        """Rows of this stage after `first_step`, and of later stages, will be written again: they are dropped."""
        if self.is_main_process:
            self._file.open(self._stages[: self._stages.index(name)], name, first_step)
        place = f"{self._stages.index(name) + 1}/{len(self._stages)}"
        self._progress.start_stage(name, place, first_step, max_steps)
        self._max_steps = max_steps
        self._since = time.monotonic()

    def training(self, name: str, step: int, averages: Mapping[str, float]) -> None:
        """One row of training averages (see Meter.read)."""
        timing = {key: averages[key] for key in TIMING if key in averages}
        timing["seconds"] = time.monotonic() - self._since
        self._since = time.monotonic()
        metrics = {key: value for key, value in averages.items() if key not in timing}
        self._log(Row(name, step, metrics, timing))
        terms = {key.removeprefix(TERM): value for key, value in averages.items() if key.startswith(TERM)}
        skipped = int(averages.get("skipped_steps", 0))
        speed, wait = averages.get("samples_per_second", 0.0), averages.get("data_wait", 0.0)
        self._progress.update(StepReport(step, averages["loss"], terms, speed, wait, skipped))
        if step == self._max_steps:
            self._progress.end_stage()

    def evaluation(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """One row of evaluation metrics."""
        if metrics:
            self._log(Row(name, step, metrics, kind="evaluation"))

    def images(self, name: str, step: int, paths: Sequence[Path]) -> None:
        """Pictures for the trackers."""
        for path in paths:
            if path.suffix == ".png":
                for tracker in self._trackers:
                    tracker.image(name, step, path)

    def seconds(self, name: str) -> float:
        """Seconds of training of a stage, over all processes that worked on it one after the other."""
        return sum(row.timing.get("seconds", 0.0) for row in self._rows(name))

    def last_metrics(self, name: str) -> Mapping[str, float]:
        """The last training row of a stage."""
        rows = self._rows(name)
        return rows[-1].metrics if rows else {}

    def skipped_steps(self, name: str) -> int:
        """Steps of a stage whose update was skipped."""
        return int(sum(row.metrics.get("skipped_steps", 0) for row in self._rows(name)))

    def truncated_texts(self, name: str) -> int:
        """Texts of a stage that were cut at the limit."""
        return int(sum(row.metrics.get("truncated_texts", 0) for row in self._rows(name)))

    def say(self, line: str) -> None:
        if self.is_main_process:
            self.console.print(line, markup=False, highlight=False)

    def show(self, what: RenderableType) -> None:
        if self.is_main_process:
            self.console.print(what)

    def finish(self) -> None:
        """Wait, within bounds, for the trackers."""
        self._progress.end_stage()
        if self.is_main_process:
            for tracker in self._trackers:
                tracker.finish()

    def _rows(self, name: str) -> list[Row]:
        return [row for row in read_rows(self._file.path) if row.stage == name and row.kind == "train"]

    def _log(self, row: Row) -> None:
        if not self.is_main_process:
            return
        if row.step <= self._told.get((row.stage, row.kind), 0):  # training went back: what was told since is void
            self._file.open(self._stages[: self._stages.index(row.stage)], row.stage, row.step - 1)
            self._told.clear()
        self._told[row.stage, row.kind] = row.step
        self._file.log(row)
        for tracker in self._trackers:
            tracker.log(row)
