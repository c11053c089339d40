"""F41: a tracker that raises, hangs or is slow never stops or slows training, and what it missed is counted."""

import logging
from threading import Event, active_count
from time import monotonic, sleep

import pytest

from vlmtrain.tracking.background import Background
from vlmtrain.tracking.base import Row, RunInfo, Tracker


class Remembers:
    def __init__(self) -> None:
        self.seen: list[object] = []

    def start(self, run):
        self.seen.append(run.name)

    def log(self, row):
        self.seen.append(row.step)

    def image(self, stage, step, path):
        self.seen.append(path)

    def finish(self):
        self.seen.append("finished")


class Raises(Remembers):
    def log(self, row):
        raise ConnectionError("500")


class Hangs(Remembers):
    def __init__(self) -> None:
        super().__init__()
        self.release = Event()

    def log(self, row):
        self.release.wait(30)


class HangsAtStart(Hangs):
    def start(self, run):
        self.release.wait(30)


class StartsLate(Remembers):
    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def start(self, run):
        self.failures -= 1
        if self.failures >= 0:
            raise TimeoutError("no answer")


@pytest.fixture
def run_info(tmp_path):
    return RunInfo("toy/1", tmp_path, {})


def train(background: Background, run_info, num_rows: int = 200) -> float:
    """Seconds that the training thread spent on the tracker, without its end."""
    started = monotonic()
    background.start(run_info)
    for step in range(num_rows):
        background.log(Row("a", step, {"loss": 1.0}))
    return monotonic() - started


def test_everything_arrives_in_order(run_info, tmp_path):
    tracker = Remembers()
    background = Background(tracker)
    assert isinstance(background, Tracker)
    train(background, run_info, 50)
    background.image("a", 50, tmp_path / "x.png")
    background.finish()
    assert tracker.seen == ["toy/1", *range(50), tmp_path / "x.png", "finished"]
    assert background.num_dropped == 0


def test_f41_a_tracker_that_raises_is_warned_about_once_a_minute(run_info, caplog):
    background = Background(Raises(), warning_seconds=60)
    with caplog.at_level(logging.WARNING):
        assert train(background, run_info, 300) < 1.0
        background.finish()
    assert background.num_dropped == 300
    assert caplog.text.count("ConnectionError('500')") == 1
    assert "missed 300 entries" in caplog.text


@pytest.mark.parametrize("tracker_class", [Hangs, HangsAtStart])
def test_f41_a_tracker_that_hangs_costs_nothing_and_ends_in_time(run_info, caplog, tracker_class):
    tracker = tracker_class()
    background = Background(tracker, queue_size=10, finish_seconds=0.2)
    assert train(background, run_info, 300) < 1.0
    started = monotonic()
    background.finish()
    assert monotonic() - started < 1.0
    assert background.num_dropped >= 289
    assert "did not finish within 0.2 s" in caplog.text
    assert caplog.text.count("queue is full") == 1
    tracker.release.set()


def test_f41_a_slow_tracker_drops_and_counts(run_info):
    class Slow(Remembers):
        def log(self, row):
            sleep(0.01)
            super().log(row)

    tracker = Slow()
    background = Background(tracker, queue_size=5)
    assert train(background, run_info, 100) < 0.5
    background.finish()
    assert len(tracker.seen) - 2 + background.num_dropped == 100


def test_a_tracker_that_starts_late_gets_everything(run_info):
    tracker = StartsLate(failures=3)
    background = Background(tracker, retry_seconds=0.02)
    train(background, run_info, 20)
    sleep(0.3)
    background.finish()
    assert tracker.seen == [*range(20), "finished"]


def test_a_tracker_that_never_starts_is_counted_and_leaves_no_thread(run_info, caplog):
    threads = active_count()
    background = Background(StartsLate(failures=1000), retry_seconds=30)
    train(background, run_info, 20)
    background.finish()
    assert background.num_dropped == 20
    assert "does not start: TimeoutError('no answer')" in caplog.text
    assert active_count() == threads


def test_finishing_without_a_start_is_nothing():
    Background(Remembers()).finish()
