"""N training processes on this machine, as torchrun would start them, but with their exit codes and our signals."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from vlmtrain.launch.failures import error_file
from vlmtrain.launch.rank import LIFELINE_VARIABLE
from vlmtrain.training.stops import HUNG, Preempted

RANK_MODULE = "vlmtrain.launch.rank"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SIGNALLED = 128  # exit codes above it, as a shell gives them, are 128 and the number of a signal
GRACE_SECONDS = 20.0  # what the others get to end by themselves after one has failed
GRACE_OF_A_DEATH = 3.0  # where one was killed, or hangs: what the others do leads nowhere


def run_processes(num_processes: int, folder: Path, with_traceback: bool = False) -> int:
    """Starts the ranks, passes signals on, waits, and gives the exit code of the first that failed, else 0."""
    begun = time.time() - 1  # file systems round
    lifeline, keep_open = os.pipe()
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(find_free_port()),
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        LIFELINE_VARIABLE: str(lifeline),
    }
    shared.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    ranks = [
        start_rank(folder, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, lifeline, with_traceback)
        for rank in range(num_processes)
    ]
    os.close(lifeline)
    with _forwarding_signals(ranks):
        code, first = _wait(ranks, folder, begun)
    os.close(keep_open)
    if code and (first or code == HUNG):
        _tell_story(folder, first, code)
    return code


class RankProcess(Protocol):
    """What the launcher does with a rank that it has started."""

    def poll(self) -> int | None: ...
    def wait(self) -> int: ...
    def kill(self) -> None: ...
    def send_signal(self, sig: int) -> None: ...


def start_rank(folder: Path, environment: dict[str, str], lifeline: int, with_traceback: bool) -> RankProcess:
    command = [sys.executable, "-m", RANK_MODULE, str(folder), *(["--debug"] if with_traceback else [])]
    # A session of its own: Ctrl-C reaches the ranks once, through us.
    return subprocess.Popen(command, env=environment, pass_fds=(lifeline,), start_new_session=True)


def find_free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _forwarding_signals(ranks: list[RankProcess]) -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    with catching_signals(forward):
        yield


@contextmanager
def catching_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """`handler` gets what asks a run to end; afterwards it is handled as before."""
    before = {number: signal.signal(number, handler) for number in FORWARDED}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _wait(ranks: list[RankProcess], folder: Path, begun: float) -> tuple[int, int]:
    """(exit code, rank) of the first that failed; the others are ended, for they would wait for it for ever."""
    while True:
        codes = [_code_of(rank) for rank in ranks]
        if any(codes):
            ended = [rank for rank, code in enumerate(codes) if code]
            _end_others(ranks, _grace([code for code in codes if code]))
            told = {rank: _told_at(folder, rank, begun) for rank in range(len(ranks))}
            first = min((rank for rank in told if rank in ended or told[rank]), key=lambda rank: told[rank])
            return _code_of(ranks[first]) or 1, first
        if None not in codes:
            return 0, 0
        time.sleep(0.1)


def _grace(codes: list[int]) -> float:
    """An error is to be written down by all that meet it, and who was asked to end is to save; not so after a death."""
    died = [code for code in codes if code == HUNG or (code > SIGNALLED and code != Preempted.exit_code)]
    return GRACE_OF_A_DEATH if died else GRACE_SECONDS


def _code_of(rank: RankProcess) -> int | None:
    """As a shell would give it; None while it runs.  A watchdog that could not speak ends its process by SIGPROF."""
    code = rank.poll()
    if code == -signal.SIGPROF:
        return HUNG
    return 128 - code if code is not None and code < 0 else code


def _told_at(folder: Path, rank: int, begun: float) -> float:
    """When a rank wrote down its error; what others meet because of it they meet later.  0 where it died in silence."""
    file = error_file(folder, rank)
    at = file.stat().st_mtime if file.is_file() else 0.0
    return at if at >= begun else 0.0


def _end_others(ranks: list[RankProcess], grace_seconds: float) -> None:
    deadline = time.monotonic() + grace_seconds
    while time.monotonic() < deadline and any(rank.poll() is None for rank in ranks):
        time.sleep(0.1)
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
            rank.wait()


def _tell_story(folder: Path, rank: int, code: int) -> None:
    """Rank 0 speaks for itself, and so does a watchdog that can; what happened on another rank is in its log."""
    file = error_file(folder, rank)
    lines = file.read_text(encoding="utf-8").strip().splitlines() if file.is_file() else []
    said = lines[-1] if lines else "ended without a word; was it killed for memory?"
    if code == HUNG:
        said = f"hung; what it did stands in {folder / 'logs' / 'ranks'}"
    sys.stderr.write(f"vlmtrain: rank {rank} failed first: {said}\n")
