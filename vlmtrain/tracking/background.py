"""Keeps trackers out of training's way: a thread of their own, a bounded queue, a bounded end."""

import logging
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Lock, Thread
from time import monotonic

from vlmtrain.tracking.base import Row, RunInfo, Tracker

logger = logging.getLogger(__name__)

_Job = Callable[[Tracker], None]


class Background:
    """Runs a tracker in a daemon thread.  Whatever the tracker does, `log` returns at once and never raises.

    A tracker that raises is warned about at most once a minute; one whose `start` raises is started again every
    `retry_seconds`, while its rows wait.  When `queue_size` rows wait, further ones are dropped and counted: they are
    in `metrics.jsonl`, from which `vlmtrain.tracking.jsonl.replay` brings them back.
    """

    def __init__(
        self,
        tracker: Tracker,
        queue_size: int = 10_000,
        finish_seconds: float = 10.0,
        retry_seconds: float = 60.0,
        warning_seconds: float = 60.0,
    ) -> None:
        self.tracker = tracker
        self.name = type(tracker).__name__
        self.finish_seconds = finish_seconds
        self.retry_seconds = retry_seconds
        self.num_dropped = 0  # rows and images that the tracker never got
        self._jobs: Queue[_Job] = Queue(maxsize=queue_size)
        self._is_finishing = Event()
        self._warning_seconds = warning_seconds
        self._last_warning = -float("inf")
        self._lock = Lock()
        self._thread: Thread | None = None

    def start(self, run: RunInfo) -> None:
        self._thread = Thread(target=self._work, args=(run,), name=f"tracker-{self.name}", daemon=True)
        self._thread.start()

    def log(self, row: Row) -> None:
        self._submit(lambda tracker: tracker.log(row))

    def image(self, stage: str, step: int, path: Path) -> None:
        self._submit(lambda tracker: tracker.image(stage, step, path))

    def finish(self) -> None:
        """Waits up to `finish_seconds` for what is still queued, then leaves the tracker behind."""
        if self._thread is None:
            return
        self._is_finishing.set()
        self._thread.join(self.finish_seconds)
        waiting = self._jobs.qsize()
        if self._thread.is_alive():
            logger.warning(
                "The tracker %s did not finish within %g s; %d entries never reached it. metrics.jsonl has them all.",
                self.name, self.finish_seconds, waiting + self.num_dropped,
            )  # fmt: skip
        elif self.num_dropped:
            logger.warning(
                "The tracker %s missed %d entries. metrics.jsonl has them all.", self.name, self.num_dropped
            )  # fmt: skip

    def _submit(self, job: _Job) -> None:
        try:
            self._jobs.put_nowait(job)
        except Full:
            self._drop("its queue is full: it is slow or down")

    def _work(self, run: RunInfo) -> None:
        if not self._start_tracker(run):
            return
        while True:
            try:
                job = self._jobs.get(timeout=0.1)
            except Empty:
                if self._is_finishing.is_set():
                    break
                continue
            try:
                job(self.tracker)
            except Exception as error:
                self._drop(repr(error))
        try:
            self.tracker.finish()
        except Exception as error:
            self._warn(f"it failed to finish: {error!r}")

    def _start_tracker(self, run: RunInfo) -> bool:
        """Whether the tracker started before the run ended."""
        while True:
            try:
                self.tracker.start(run)
            except Exception as error:
                self._warn(f"it does not start: {error!r}")
            else:
                return True
            if self._is_finishing.wait(self.retry_seconds):
                self.num_dropped += self._jobs.qsize()
                return False

    def _drop(self, reason: str) -> None:
        self.num_dropped += 1
        self._warn(reason)

    def _warn(self, reason: str) -> None:
        with self._lock:
            if monotonic() - self._last_warning < self._warning_seconds:
                return
            self._last_warning = monotonic()
        logger.warning("The tracker %s has missed %d entries: %s", self.name, self.num_dropped, reason)
