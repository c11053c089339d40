"""Checkpoints that a thread writes: as they were at their step, one at a time, and whatever ends a run waits."""

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_toy import build_trainer, join, start

from vlmtrain.training import writing
from vlmtrain.training.checkpoint import list_checkpoints, newest_valid
from vlmtrain.training.publish import STAGING
from vlmtrain.training.signals import Signals
from vlmtrain.training.stops import NonFiniteTraining, Preempted, SavingFails
from vlmtrain.training.tensor_file import TensorFile
from vlmtrain.training.trainer import Trainer

TOY = "checkpoints/toy"


class Slow:
    """Takes its time for every file of tensors, and notes who wrote when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float = 0.1) -> None:
        self.events: list[str] = []
        self.threads: set[str] = set()
        real = TensorFile.write

        def write(file: TensorFile, path: Path) -> None:
            self.events.append(f"{path.parent.name.removeprefix(STAGING)} {path.name}")
            self.threads.add(threading.current_thread().name)
            time.sleep(seconds)
            real(file, path)

        monkeypatch.setattr(TensorFile, "write", write)


class Told:
    """An action that does something at one step."""

    every = 1

    def __init__(self, step: int, act) -> None:
        self.step, self.act = step, act

    def __call__(self, trainer: Trainer) -> None:
        if trainer.progress.step == self.step:
            self.act(trainer)


def contents(folder: Path) -> dict[str, bytes]:
    """What is in the checkpoints, manifests left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "manifest.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every checkpoint of a run that waits for its disk."""
    folder = tmp_path_factory.mktemp("straight")
    build_trainer(folder, ema=True, keep=9).train(Signals())
    return folder


def test_holds_the_values_of_its_step_and_training_goes_on(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    trainer = build_trainer(tmp_path, ema=True, keep=9, asynchronously=True)
    trainer.actions.append(Told(5, lambda _: slow.events.append("step 5")))
    trainer.train(Signals())
    assert contents(tmp_path / TOY) == contents(straight / TOY)
    assert slow.threads == {"checkpoint"}
    assert slow.events.index("step 5") < slow.events.index("step-00000003 optimizer.safetensors"), "training waited"
    steps = [event.split()[0] for event in slow.events if event != "step 5"]
    assert steps == sorted(steps), "one save waits for the one before"


@pytest.mark.parametrize("number", [1, 2, 4, 6, 7, 8])
def test_training_goes_on_when_the_disk_is_full(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == 9 + number:  # in the save of step 6
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    build_trainer(tmp_path, ema=True, max_steps=9, asynchronously=True).train(Signals())
    names = [path.name for path in list_checkpoints(tmp_path / TOY)]
    assert names == ["step-00000009", "step-00000003"]
    assert sum("No space left" in record.message for record in caplog.records) == 1
    assert not list((tmp_path / TOY).glob(f"{STAGING}*"))


def test_three_failures_in_a_row_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", fsync)
    trainer = build_trainer(tmp_path, max_steps=30, asynchronously=True)
    with pytest.raises(SavingFails, match="3 checkpoints in a row"):
        trainer.train(Signals())
    assert trainer.progress.step == 12  # that of step 9 is waited for when the next one is due
    assert list((tmp_path / TOY).iterdir()) == []


def test_what_is_not_finite_is_said_at_the_next_save_and_not_published(tmp_path: Path) -> None:
    def poison(trainer: Trainer) -> None:
        trainer.model.connector[0].weight.data[0, 0] = float("inf")

    trainer = build_trainer(tmp_path, asynchronously=True)
    trainer.max_skipped_steps = 99
    trainer.actions.insert(0, Told(6, poison))
    with pytest.raises(NonFiniteTraining, match=r"connector\.0\.weight"):
        trainer.train(Signals())
    assert [path.name for path in (tmp_path / TOY).iterdir()] == ["step-00000003"]


def test_a_fault_of_the_writer_itself_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(file: TensorFile, path: Path) -> None:
        raise KeyError("of ours")

    monkeypatch.setattr(TensorFile, "write", write)
    with pytest.raises(KeyError, match="of ours"):
        build_trainer(tmp_path, asynchronously=True).train(Signals())
    assert list((tmp_path / TOY).iterdir()) == []


@pytest.mark.parametrize("way", ["end", "signal", "error"])
def test_whatever_ends_the_run_waits(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Slow(monkeypatch)

    def ask(trainer: Trainer) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def fail(trainer: Trainer) -> None:
        raise ZeroDivisionError

    trainer = build_trainer(tmp_path, asynchronously=True, max_steps=6)
    acts = {"end": lambda _: None, "signal": ask, "error": fail}
    trainer.actions.append(Told(3, acts[way]))
    stop = {"end": (), "signal": Preempted, "error": ZeroDivisionError}[way]
    with Signals() as signals:
        if stop:
            with pytest.raises(stop):
                trainer.train(signals)
        else:
            trainer.train(signals)
    newest = newest_valid(tmp_path / TOY)
    assert newest is not None and newest.name == f"step-{trainer.progress.step:08d}"


def test_a_signal_tries_again_what_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = []

    def seal(*arguments: object) -> None:
        if not failed:
            failed.append(True)
            raise OSError(errno.EIO, "once")
        real(*arguments)  # type: ignore[arg-type]

    real = writing.seal
    monkeypatch.setattr(writing, "seal", seal)
    trainer = build_trainer(tmp_path, asynchronously=True)
    trainer.actions.insert(0, Told(3, lambda _: os.kill(os.getpid(), signal.SIGTERM)))
    with Signals() as signals, pytest.raises(Preempted):
        trainer.train(signals)
    newest = newest_valid(tmp_path / TOY)
    assert failed and newest is not None and newest.name == f"step-{trainer.progress.step:08d}"


def wait_for(what: Path, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not what.exists():
        assert time.monotonic() < until, f"{what} did not appear"
        time.sleep(0.01)


def stages(folder: Path) -> Iterator[str]:
    return (path.name for path in (folder / TOY).glob(f"{STAGING}*"))


@pytest.mark.parametrize(
    ("world", "engine", "file"),
    [(1, "ddp", "optimizer.safetensors"), (2, "fsdp2", "part-00002-of-00002.safetensors")],
)
def test_kill_9_while_a_thread_writes(world: int, engine: str, file: str, tmp_path: Path) -> None:
    """The writer stops before a file of step 6; of two ranks that of rank 1, and rank 0 waits for it to publish."""
    job = {"ema": True, "in_parts": world > 1, "asynchronously": True, "engine": engine}
    folder = tmp_path / "killed"
    ranks = start(folder, world, **job, stall=("step-00000006", file))
    wait_for(folder / "stalled")
    time.sleep(0.3)
    assert list(stages(folder)) == [f"{STAGING}step-00000006"]
    for rank in ranks:
        os.kill(rank.pid or 0, signal.SIGKILL)
    assert join(ranks) == [-signal.SIGKILL] * world
    newest = newest_valid(folder / TOY)
    assert newest is not None and newest.name == "step-00000003"
    for each in (folder, tmp_path / "straight"):
        assert join(start(each, world, **job)) == [0] * world
    assert contents(folder / TOY) == contents(tmp_path / "straight" / TOY)
    assert not list(stages(folder))
