"""Shows how training goes: one line that renews itself on a terminal, a plain line per interval elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

_BAR_WIDTH = 14
_WIDE = 120


@dataclass(frozen=True)
class StepReport:
    """One step as the progress line tells it."""

    step: int  # steps of this stage that are done
    loss: float
    terms: Mapping[str, float] = field(default_factory=dict)  # each objective's own loss
    samples_per_second: float = 0.0
    data_wait: float = 0.0  # share of the time spent waiting for data, 0 to 1
    skipped: int = 0  # steps skipped because of a loss or gradient that is not finite


class Progress(Protocol):
    """What run.py tells, stage by stage."""

    def start_stage(self, name: str, place: str, first_step: int, max_steps: int) -> None:
        """`place` is "1/2"; `first_step` is how many steps a resumed stage has behind it."""

    def update(self, report: StepReport) -> None: ...
    def end_stage(self) -> None: ...


class Clock:
    """The seconds left of a stage, from the pace of this process."""

    def __init__(self, first_step: int, max_steps: int, now: Callable[[], float] = monotonic) -> None:
        self.first_step, self.max_steps = first_step, max_steps
        self._now = now
        self._started = now()

    def seconds_left(self, step: int) -> float | None:
        """None before there is a pace."""
        done = step - self.first_step
        if done <= 0:
            return None
        return (self._now() - self._started) / done * max(0, self.max_steps - step)


class TerminalProgress:
    """One line that renews itself; log messages appear above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar: RichProgress | None = None
        self._clock = Clock(0, 0)

    def start_stage(self, name: str, place: str, first_step: int, max_steps: int) -> None:
        self.end_stage()
        self._clock = Clock(first_step, max_steps)
        self._bar = RichProgress(
            TextColumn("{task.description}", style="bold", markup=False, table_column=Column(no_wrap=True)),
            *([BarColumn(bar_width=_BAR_WIDTH)] if self._has_bar() else []),
            TextColumn("{task.fields[report]}", markup=False, table_column=Column(no_wrap=True)),
            console=self.console,
            refresh_per_second=4,
            transient=False,
        )
        self._bar.start()
        self._bar.add_task(f"{name} {place}", total=max_steps, completed=first_step, report="starting")

    def update(self, report: StepReport) -> None:
        if self._bar is None:
            return
        task = self._bar.tasks[0]
        width = self.console.width - len(task.description) - 1 - (_BAR_WIDTH + 1 if self._has_bar() else 0)
        text = describe(report, self._clock.max_steps, self._clock.seconds_left(report.step), width)
        self._bar.update(task.id, completed=report.step, report=text)

    def end_stage(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _has_bar(self) -> bool:
        """A narrow terminal has better use for the room."""
        return self.console.width >= _WIDE


class LineProgress:
    """A plain line every `interval` seconds, and for the first and the last report of a stage."""

    def __init__(self, console: Console, interval: float = 10.0, now: Callable[[], float] = monotonic) -> None:
        self.console = console
        self.interval = interval
        self._now = now
        self._last = -float("inf")
        self._name = ""
        self._clock = Clock(0, 0, now)

    def start_stage(self, name: str, place: str, first_step: int, max_steps: int) -> None:
        self._name = f"{name} {place}"
        self._clock, self._last = Clock(first_step, max_steps, self._now), -float("inf")

    def update(self, report: StepReport) -> None:
        if self._now() - self._last < self.interval and report.step < self._clock.max_steps:
            return
        self._last = self._now()
        told = describe(report, self._clock.max_steps, self._clock.seconds_left(report.step))
        self.console.print(f"{self._name} · {told}", soft_wrap=True, markup=False, highlight=False)

    def end_stage(self) -> None:
        pass


class SilentProgress:
    """For every process but the first."""

    def start_stage(self, name: str, place: str, first_step: int, max_steps: int) -> None:
        pass

    def update(self, report: StepReport) -> None:
        pass

    def end_stage(self) -> None:
        pass


def choose_progress(console: Console, is_main_process: bool, interval: float = 10.0) -> Progress:
    """The progress that suits where the output goes."""
    if not is_main_process:
        return SilentProgress()
    return TerminalProgress(console) if console.is_terminal else LineProgress(console, interval)


def describe(report: StepReport, max_steps: int, seconds_left: float | None, width: int | None = None) -> str:
    """`440/900 · 1:23 left · loss 1.234 (contrastive 0.51, matching 0.22) · 512 samples/s · data 2 %`

    In less than its full `width`, the terms are told by their first letters, or not at all.
    """
    head = [f"{report.step}/{max_steps}"]
    if seconds_left is not None:
        head.append(f"{format_duration(seconds_left)} left")
    tail = [f"data {100 * report.data_wait:.0f} %", *([f"{report.skipped} skipped"] if report.skipped else [])]
    lines = [
        " · ".join([*head, loss, f"{report.samples_per_second:.0f}{unit}", *tail])
        for unit in (" samples/s", "/s")
        for loss in _tell_loss(report)
    ]
    lines.sort(key=len, reverse=True)
    return next((line for line in lines if width is None or len(line) <= width), lines[-1])


def _tell_loss(report: StepReport) -> list[str]:
    """The loss with its terms, from the longest telling to the shortest."""
    loss = f"loss {report.loss:.3f}"
    if len(report.terms) < 2:
        return [loss]
    full = ", ".join(f"{name} {value:.3f}" for name, value in report.terms.items())
    short = " ".join(f"{name[:4]} {value:.2f}" for name, value in report.terms.items())
    return [f"{loss} ({full})", f"{loss} ({short})", loss]


def format_duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`, `3 d 4 h`"""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
