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
    """A rank at one moment.  `collectives`: how many operations with all ranks it has begun since it started."""

    rank: int
    stage: str = ""
    phase: str = "init"
    step: int = 0
    samples: tuple[str, ...] = ()
    collectives: int = 0
    host: str = ""
    pid: int = 0

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

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.rank = rank
        folder.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._file(rank), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o640)
        self._begun = os.fstat(self._descriptor).st_mtime
        self._identity = {"host": socket.gethostname(), "pid": os.getpid()}

    def write(self, beat: Beat) -> None:
        told = {**asdict(beat), "samples": [name[:80] for name in beat.samples[:SHOWN_SAMPLES]], **self._identity}
        os.pwrite(self._descriptor, json.dumps(told).encode()[:_BYTES].ljust(_BYTES), 0)

    def others(self, since: float = 120.0) -> list[Beat]:
        """The other ranks; a file that was there `since` seconds before this rank began is not believed."""
        files = sorted(path for path in self.folder.glob("rank*.json") if path != self._file(self.rank))
        recent = [read_beat(path) for path in files if path.stat().st_mtime > self._begun - since]
        return [beat for beat in recent if beat is not None]

    def stack_file(self, rank: int) -> Path:
        """Where the stacks of a rank are dumped."""
        return self.folder / f"rank{rank}.stacks.log"

    def close(self) -> None:
        os.close(self._descriptor)

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank{rank}.json"


def read_beat(path: Path) -> Beat | None:
    """None where there is none, or it is just being written."""
    try:
        told = json.loads(path.read_bytes())
        return Beat(**{**told, "samples": tuple(told["samples"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
