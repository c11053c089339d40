"""Where each rank stands, in a small file of its own, so that any of them can say which one all wait for."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

SHOWN_SAMPLES = 8
_BYTES = 4096  # one write of one length: a reader never meets half of one line and half of another


@dataclass(frozen=True)
class Beat:
    """A rank at one moment.  `collectives`: how many operations with all ranks it has begun since it started.

    `started`: when its process did, as the kernel counts, so that another one of its number is not taken for it.
    """

    rank: int
    stage: str = ""
    phase: str = "init"
    step: int = 0
    samples: tuple[str, ...] = ()
    collectives: int = 0
    host: str = ""
    pid: int = 0
    started: int = 0

    def place(self) -> str:
        """In words."""
        where = f"stage {self.stage}, " if self.stage else ""
        ids = f", samples {', '.join(self.samples)}" if self.samples else ""
        return f"{where}phase {self.phase}, step {self.step}{ids}"

    def progress(self) -> tuple[int, int]:
        """What grows while ranks go on together; of two ranks, the one with less is waited for."""
        return self.collectives, self.step


class Heartbeats:
    """The files of all ranks in `folder`, and of `rank` the open one."""

    def __init__(self, folder: Path, rank: int, world_size: int) -> None:
        self.folder = folder
        self.rank = rank
        self.world_size = world_size
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._file(rank), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
        self._begun = os.fstat(self._descriptor).st_mtime
        state = state_of(os.getpid())
        started = state.started if state is not None else 0
        self._identity = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}

    def write(self, beat: Beat) -> None:
        told = {**asdict(beat), "samples": [name[:80] for name in beat.samples[:SHOWN_SAMPLES]], **self._identity}
        os.pwrite(self._descriptor, json.dumps(told).encode()[:_BYTES].ljust(_BYTES), 0)

    def others(self, since: float = 120.0) -> list[Beat]:
        """The other ranks; a file that was there `since` seconds before this rank began is not believed."""
        files = [self._file(rank) for rank in range(self.world_size) if rank != self.rank]
        recent = [read_beat(file) for file in files if file.is_file() and file.stat().st_mtime > self._begun - since]
        return [beat for beat in recent if beat is not None]

    def stack_file(self, rank: int) -> Path:
        """Where the stacks of a rank are dumped."""
        return self.folder / f"rank{rank}.stacks.log"

    def close(self) -> None:
        os.close(self._descriptor)

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.json"


@dataclass(frozen=True)
class ProcessState:
    """What the kernel says of a process; `letter`: R runs, S sleeps, T is stopped, Z is dead."""

    letter: str
    started: int


def state_of(pid: int) -> ProcessState | None:
    """None where there is no such process on this machine."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return ProcessState(fields[0], int(fields[19]))


def read_beat(path: Path) -> Beat | None:
    """None where there is none, or it is just being written."""
    try:
        told = json.loads(path.read_bytes())
        return Beat(**{**told, "samples": tuple(told["samples"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
