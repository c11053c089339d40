"""Reads ranges of data files: many files, few open at a time, none inherited or shared by accident."""

import os
import stat
import weakref
from collections import OrderedDict
from pathlib import Path

_MAX_OPEN = 64
_MAX_BYTES = 256 << 20  # of a file that is read whole


class OpenFiles:
    """Keeps the files used last open.  A copy sent to another process starts with none.

    Reads name their offset (`pread`), so that a forked copy cannot move this one's position.
    """

    def __init__(self) -> None:
        self._start_empty()

    def read(self, path: Path, offset: int, length: int, stamp: dict[str, int] | None = None) -> bytes:
        """`length` bytes; ValueError if the file is not, by `stamp`, the one that was indexed."""
        descriptor = self._descriptors.get(path)
        if descriptor is None:
            descriptor = self._open(path, stamp)
        self._descriptors.move_to_end(path)
        data = os.pread(descriptor, length, offset)
        if len(data) != length:
            raise ValueError(f"{path} has changed since it was indexed: it ends within the sample at byte {offset}")
        return data

    def close(self) -> None:
        close_all(self._descriptors)

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._start_empty()

    def _start_empty(self) -> None:
        self._descriptors: OrderedDict[Path, int] = OrderedDict()
        weakref.finalize(self, close_all, self._descriptors)  # not __del__, which may run when modules are gone

    def _open(self, path: Path, stamp: dict[str, int] | None) -> int:
        descriptor = open_regular(path)
        status = os.fstat(descriptor)
        if stamp is not None and stamp != {"size": status.st_size, "modified_ns": status.st_mtime_ns}:
            os.close(descriptor)
            raise ValueError(f"{path} has changed since it was indexed: start the run again to look at it afresh")
        while len(self._descriptors) >= _MAX_OPEN:
            os.close(self._descriptors.popitem(last=False)[1])
        self._descriptors[path] = descriptor
        return descriptor


def close_all(descriptors: OrderedDict[Path, int]) -> None:
    """Close and forget."""
    while descriptors:
        os.close(descriptors.popitem()[1])


def open_regular(path: Path) -> int:
    """Descriptor of a regular file; a pipe or device, which could block for ever, is a ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is not a regular file")
    return descriptor


def read_regular(path: Path) -> bytes:
    """The whole of a regular file; anything else, and one too large to be a sample, is a ValueError."""
    with os.fdopen(open_regular(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_BYTES:
            raise ValueError(f"{path} has {size} bytes, more than {_MAX_BYTES}")
        return file.read(size)


def find_files(path: str, suffix: str) -> list[Path]:
    """The files that `path` means: one file, all `*suffix` of a folder, or a pattern such as folder/train-*.tar."""
    if "://" in path or path.startswith("pipe:"):
        raise ValueError(f"{path!r} is not a local path: download the data first, then name the folder")
    place = Path(path).expanduser()
    if place.is_dir():
        files = sorted(place.glob(f"*{suffix}"))
    elif place.is_file():
        files = [place]
    else:
        files = sorted(place.parent.glob(place.name)) if place.parent.is_dir() else []
    if not files:
        raise ValueError(f"no {suffix} file at {place.absolute()}: name a folder that has some, or one such file")
    return files
