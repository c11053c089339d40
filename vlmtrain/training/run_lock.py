"""One process trains in a run folder at a time."""

import fcntl
import json
import logging
import os
import socket
import struct
from pathlib import Path
from typing import Self

logger = logging.getLogger(__name__)

NAME = ".lock"
_FLOCK = "hhqqi"  # struct flock: kind, whence, start, length, process


class RunLock:
    """In a `with` block the run folder is ours; ValueError naming pid and host of the process that has it.

    A record lock of the kernel: it ends with the process however that ends, forked workers do not inherit it, and NFS
    carries it to other hosts.  So the lock of a dead process is never in the way.
    """

    def __init__(self, run_folder: Path) -> None:
        self.path = run_folder / NAME
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = _holder(descriptor) or "another process"
            os.close(descriptor)
            raise ValueError(
                f"{self.path.parent} is in use by {holder}; wait for it, or give another folder with run_dir="
            ) from None
        left = _holder(descriptor)
        if left:
            logger.warning("taking over %s from %s, which is gone", self.path.parent, left)
        _write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        self._descriptor = descriptor
        return self

    def __exit__(self, *raised: object) -> None:
        if self._descriptor is not None:
            _write(self._descriptor, b"")
            os.close(self._descriptor)
            self._descriptor = None


def who_holds(run_folder: Path) -> str:
    """The process that trains in the folder now, in words; empty where none does.  Asks without taking the lock."""
    path = run_folder / NAME
    if not path.is_file():
        return ""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
        return "" if kind == fcntl.F_UNLCK else _holder(descriptor) or "another process"
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Who is written in the lock, in words; empty where nobody is."""
    content = os.pread(descriptor, 4096, 0)
    try:
        told = json.loads(content)
        return f"process {told['pid']} on {told['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process" if content else ""


def _write(descriptor: int, content: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)
