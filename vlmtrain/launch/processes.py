"""N training processes on this machine, as torchrun would start them, but with their exit codes and our signals."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vlmtrain.launch.rank import LIFELINE_VARIABLE

RANK_MODULE = "vlmtrain.launch.rank"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE_SECONDS = 20.0  # what the others get to end by themselves after one has failed


def run_processes(num_processes: int, folder: Path, with_traceback: bool = False) -> int:
    """Starts the ranks, passes signals on, waits, and gives the exit code of the first that failed, else 0."""
    lifeline, keep_open = os.pipe()
    command = [sys.executable, "-m", RANK_MODULE, str(folder), *(["--debug"] if with_traceback else [])]
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
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            pass_fds=(lifeline,),
            start_new_session=True,  # Ctrl-C reaches the ranks once, through us
        )
        for rank in range(num_processes)
    ]
    os.close(lifeline)
    with _forwarding_signals(ranks):
        code, first = _wait(ranks)
    os.close(keep_open)
    if code and first:
        _tell_story(folder, first)
    return code


def find_free_port() -> int:
    """A TCP port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def _forwarding_signals(ranks: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        for rank in ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    before = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> tuple[int, int]:
    """(exit code, rank) of the first that failed; the others are ended, for they would wait for it for ever."""
    while True:
        ended = [rank.poll() for rank in ranks]
        failed = [(code, rank) for rank, code in enumerate(ended) if code]
        if failed:
            _end_others(ranks)
            code, rank = failed[0]
            return (128 - code if code < 0 else code), rank
        if None not in ended:
            return 0, 0
        time.sleep(0.1)


def _end_others(ranks: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and any(rank.poll() is None for rank in ranks):
        time.sleep(0.1)
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
            rank.wait()


def _tell_story(folder: Path, rank: int) -> None:
    """Rank 0 speaks for itself; what happened on another one is in its log."""
    file = folder / "logs" / f"error.rank{rank}.log"
    lines = file.read_text(encoding="utf-8").strip().splitlines() if file.is_file() else []
    said = lines[-1] if lines else "ended without a word; was it killed for memory?"
    sys.stderr.write(f"vlmtrain: rank {rank} failed first: {said}\n")
