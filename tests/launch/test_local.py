"""Launching with a stand-in for the training: exit codes, resumption, signals, several processes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from vlmtrain.config.faults import ConfigError, Fault
from vlmtrain.launch import local, processes
from vlmtrain.launch.failures import exit_code_of
from vlmtrain.launch.local import launch
from vlmtrain.launch.processes import run_processes
from vlmtrain.training.stops import HUNG, NonFiniteTraining, Preempted

ROOT = Path(__file__).resolve().parents[2]


def configure(**changes: Any) -> dict[str, Any]:
    base = {"experiment": "toy", "seed": 0, "run_dir": "run", "distributed": {"num_processes": 1, "engine": None}}
    return base | changes


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(started_by_a_user: None) -> None:
    """Every test here."""


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Takes the place of vlmtrain.run; `training.train` may be exchanged."""
    module = types.ModuleType("vlmtrain.run")
    module.train = lambda folder, last_stage=None: (folder / "summary.json").write_text(json.dumps({"state": "done"}))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vlmtrain.run", module)
    return module


def raising(error: BaseException) -> Any:
    def train(folder: Path, last_stage: str | None = None) -> None:
        raise error

    return train


def test_a_run_leaves_its_configuration(training: types.ModuleType) -> None:
    assert launch(configure()) == 0
    assert Path("run/config.yaml").is_file() and Path("runs/latest/summary.json").is_file()


def test_a_finished_run_has_nothing_left_to_do(training: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    launch(configure())
    training.train = raising(AssertionError("trained again"))
    assert launch(configure()) == 0
    assert "nothing left to do" in capsys.readouterr().err


def test_fresh_starts_over_and_keeps_the_old_run(training: types.ModuleType) -> None:
    launch(configure())
    assert launch(configure(seed=1), start_fresh=True) == 0
    assert len(list(Path().glob("run.before-*/summary.json"))) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("batch"), 2),
        (FileNotFoundError("data"), 2),
        (PermissionError(errno.EACCES, "not yours"), 2),
        (NotADirectoryError(errno.ENOTDIR, "a file"), 2),
        (NonFiniteTraining("nan"), 3),
        (OSError(errno.ENOSPC, "full"), 4),
        (OSError(errno.EROFS, "read-only"), 4),
        (Preempted("signal"), 143),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("bug"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failures_become_exit_codes_and_one_message(
    error: BaseException, code: int, training: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    training.train = raising(error)
    assert launch(configure()) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said and len(said.strip().splitlines()) <= 4
    assert "Traceback" in Path("run/logs/error.log").read_text()


def test_debug_shows_the_traceback(training: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    training.train = raising(ValueError("batch"))
    assert launch(configure(), with_traceback=True) == 2
    assert "Traceback" in capsys.readouterr().err


def test_faults_of_a_configuration_are_the_users() -> None:
    assert exit_code_of(ConfigError([Fault("a", "b")])) == 2


def test_a_second_process_in_the_same_folder_is_told(training: types.ModuleType) -> None:
    Path("run").mkdir()
    holder = "import sys\nfrom pathlib import Path\nfrom vlmtrain.training.run_lock import RunLock\n"
    holder += (
        "with RunLock(Path('run')):\n    sys.stdout.write('held\\n')\n    sys.stdout.flush()\n    sys.stdin.read()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", holder], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match=f"in use by process {other.pid}"):
            launch(configure())
        other.communicate(b"")
    assert launch(configure()) == 0


def test_under_torchrun_a_folder_must_be_named(training: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="run_dir=FOLDER"):
        launch(configure(run_dir=None))
    with pytest.raises(ValueError, match="--fresh"):
        launch(configure(), start_fresh=True)


def test_under_torchrun_all_ranks_train_in_one_folder(
    training: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(local, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match="has not come from rank 0"):
        launch(configure())
    monkeypatch.setenv("RANK", "0")
    assert launch(configure()) == 0
    monkeypatch.setenv("RANK", "1")
    assert launch(configure()) == 0
    with pytest.raises(ValueError, match="seed: 0 -> 1"):
        launch(configure(seed=1))


# Several processes: toy ranks instead of training ------------------------------------------------------------------


def use_ranks(code: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ranks run `code` with `rank`, `folder` and `watch_launcher` defined."""
    head = "import os, pathlib, signal, sys, time\nfrom vlmtrain.launch.rank import watch_launcher\nwatch_launcher()\n"
    head += "rank, folder = int(os.environ['RANK']), pathlib.Path(sys.argv[1])\n"
    Path("toyrank.py").write_text(head + code)
    Path("run").mkdir(exist_ok=True)
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}{os.pathsep}{ROOT}")
    monkeypatch.setattr(processes, "RANK_MODULE", "toyrank")
    return Path("run")


def test_ranks_know_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "names = 'RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT OMP_NUM_THREADS'.split()\n"
    code += "(folder / str(rank)).write_text(' '.join(os.environ[name] for name in names))\n"
    folder = use_ranks(code, monkeypatch)
    assert run_processes(2, folder) == 0
    first, second = ((folder / name).read_text().split() for name in "01")
    assert first[:4] == ["0", "0", "2", "127.0.0.1"] and second[:3] == ["1", "1", "2"]
    assert first[4] == second[4]


def test_the_first_failure_is_the_exit_code_and_ends_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    code = "if rank == 1:\n    (folder / 'logs').mkdir()\n    (folder / 'logs/error.rank1.log').write_text('why')\n"
    folder = use_ranks(code + "    sys.exit(3)\ntime.sleep(60)\n", monkeypatch)
    started = time.monotonic()
    assert run_processes(2, folder) == 3
    assert time.monotonic() - started < 20
    assert "rank 1 failed first: why" in capsys.readouterr().err


def test_who_failed_first_is_blamed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rank 0 loses the connection and is gone while rank 1, whose fault it is, is still leaving."""
    code = "(folder / 'logs').mkdir(exist_ok=True)\n"
    code += "if rank == 1:\n    (folder / 'logs/error.rank1.log').write_text('ValueError: why')\n    time.sleep(1)\n"
    code += "    sys.exit(2)\n"
    code += "while not (folder / 'logs/error.rank1.log').exists():\n    time.sleep(0.02)\n"
    code += "time.sleep(0.1)\n(folder / 'logs/error.log').write_text('connection closed')\nsys.exit(1)\n"
    folder = use_ranks(code, monkeypatch)
    assert run_processes(2, folder) == 2
    assert "rank 1 failed first: ValueError: why" in capsys.readouterr().err


def test_a_rank_that_hung_ends_the_others_soon(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = use_ranks("if rank == 1:\n    sys.exit(8)\nos.kill(os.getpid(), signal.SIGSTOP)\n", monkeypatch)
    started = time.monotonic()
    assert run_processes(2, folder) == HUNG
    assert time.monotonic() - started < processes.GRACE_SECONDS
    assert "rank 1 failed first: hung" in capsys.readouterr().err


def test_a_watchdog_that_could_not_speak_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = use_ranks("if rank == 1:\n    os.kill(os.getpid(), signal.SIGPROF)\ntime.sleep(60)\n", monkeypatch)
    assert run_processes(2, folder) == HUNG


def test_a_signal_reaches_every_rank_once(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "signal.signal(signal.SIGTERM, lambda *_: (folder / f'got{rank}').open('a').write('x'))\n"
    code += "(folder / f'ready{rank}').touch()\nwhile not (folder / f'got{rank}').exists():\n    time.sleep(0.02)\n"
    folder = use_ranks(code + "time.sleep(0.2)\nsys.exit(143)\n", monkeypatch)
    pid = os.getpid()
    waiter = f"while [ ! -e run/ready0 ] || [ ! -e run/ready1 ]; do sleep 0.05; done; kill -TERM {pid}"
    with subprocess.Popen(["bash", "-c", waiter]):
        assert run_processes(2, folder) == 143
    assert [(folder / name).read_text() for name in ("got0", "got1")] == ["x", "x"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_ranks_end_when_the_launcher_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = use_ranks("(folder / f'pid{rank}').write_text(str(os.getpid()))\ntime.sleep(60)\n", monkeypatch)
    launcher = "from pathlib import Path\nfrom vlmtrain.launch import processes\nprocesses.RANK_MODULE = 'toyrank'\n"
    launcher += "processes.run_processes(2, Path('run'))\n"
    process = subprocess.Popen([sys.executable, "-c", launcher])
    files = [folder / "pid0", folder / "pid1"]
    wait_until(lambda: all(file.is_file() and file.read_text() for file in files))
    process.kill()
    process.wait()
    wait_until(lambda: not any(is_alive(int(file.read_text())) for file in files))


def wait_until(happens: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
