"""Workers are killed, signalled and started anew; nothing is lost and nothing hangs (fault matrix F07, F22, F23)."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from vlmtrain.data.workers import WorkerPool

READS = '''
import os, signal, time
from pathlib import Path

def place(place):
    return (os.getpid(), place)

class DieAt:
    """Kills its worker at a place, as often as told."""
    def __init__(self, folder, step, times):
        self.folder, self.step, self.times = folder, step, times
    def __call__(self, place):
        marks = len(os.listdir(self.folder))
        if place[0] == self.step and marks < self.times:
            Path(self.folder, str(marks)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return place

def signalled(place):
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(os.getpid(), number)
    time.sleep(0.05)
    return place

def faulty(place):
    raise {0: ValueError, 1: OSError, 2: TypeError}[place[1]]("planted fault")
'''


@pytest.fixture
def reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that workers can import too."""
    (tmp_path / "reads_for_workers.py").write_text(READS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("reads_for_workers", None)
    return __import__("reads_for_workers")


def places(number: int) -> tuple[int, int]:
    return number // 2, number % 2


def test_without_workers_this_process_reads(reads: ModuleType) -> None:
    items = list(WorkerPool(reads.place, 0, "forkserver").items(3, places))
    assert items == [(os.getpid(), (0, 0)), (os.getpid(), (0, 1)), (os.getpid(), (1, 0))]


def test_items_come_in_order_from_other_processes(reads: ModuleType) -> None:
    items = list(WorkerPool(reads.place, 2, "forkserver").items(8, places))
    assert [place for _, place in items] == [places(number) for number in range(8)]
    assert os.getpid() not in {process for process, _ in items} and len({process for process, _ in items}) == 2


@pytest.mark.parametrize("start_method", ["forkserver", "fork"])
def test_killed_worker_is_noticed_and_replaced(
    reads: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, start_method: str
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    start = time.monotonic()
    with caplog.at_level(logging.WARNING):
        items = list(WorkerPool(reads.DieAt(str(marks), 2, 1), 2, start_method).items(10, places))
    assert items == [places(number) for number in range(10)]
    assert caplog.text.count("a data worker died before micro-batch") == 1
    assert time.monotonic() - start < 60


def test_worker_that_dies_every_time_stops_the_run(reads: ModuleType, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    delivered = []
    with pytest.raises(RuntimeError, match=r"died before micro-batch .*lower num_workers \(now 1\)"):
        delivered.extend(WorkerPool(reads.DieAt(str(marks), 1, 99), 1, "fork").items(10, places))


def test_workers_ignore_the_signals_of_the_main_process(reads: ModuleType) -> None:
    assert list(WorkerPool(reads.signalled, 1, "forkserver").items(4, places)) == [places(n) for n in range(4)]


@pytest.mark.parametrize(("number", "kind"), [(0, ValueError), (1, OSError)])
def test_expected_errors_arrive_as_they_are(reads: ModuleType, number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"^planted fault$"):
        list(WorkerPool(reads.faulty, 1, "fork").items(1, lambda _: (0, number)))


def test_unexpected_errors_arrive_with_their_traceback(reads: ModuleType) -> None:
    with pytest.raises(RuntimeError, match=r"failed at \(0, 2\)(.|\n)*TypeError: planted fault"):
        list(WorkerPool(reads.faulty, 1, "fork").items(1, lambda _: (0, 2)))


def test_no_worker_outlives_a_killed_main_process(tmp_path: Path, reads: ModuleType) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "import time\nfrom vlmtrain.data.workers import WorkerPool\nimport reads_for_workers\n"
        "if __name__ == '__main__':\n"
        "    items = WorkerPool(reads_for_workers.place, 2, 'forkserver').items(10**6, lambda n: (n, 0))\n"
        "    print(*{next(items)[0] for _ in range(8)}, flush=True)\n"
        "    time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    main = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    assert main.stdout is not None
    workers = [int(word) for word in main.stdout.readline().split()]
    main.send_signal(signal.SIGKILL)
    main.wait()
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert workers and not any(map(is_running, workers))


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_an_abandoned_iterator_ends_its_workers(reads: ModuleType) -> None:
    items = WorkerPool(reads.place, 1, "fork").items(10**6, places)
    process, _ = next(items)
    items.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(process)
