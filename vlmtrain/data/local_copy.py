"""A copy of the data on the node's own disk, made once, read by all processes of the node.

A file system that many nodes share is slow at what training does, many small reads at random places.  The copy is
known by its source's place and by name, size and time of each of its files: other data get another copy, and a job
that is requeued to the node finds its own.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmtrain.data.sources.files import open_regular
from vlmtrain.data.sources.index_cache import NOTES, file_stamp, sha256_of

logger = logging.getLogger(__name__)

ALL = "**/*"
PART = ".part"  # a copy that is not whole yet
SPARE_BYTES = 64 << 20
_CHUNK = 4 << 20

Files = dict[str, dict[str, int] | str]  # relative path -> size and time, or where a link leads


def with_local_copies(node: Any, cache: Path, arguments: Sequence[str]) -> Any:
    """A data node of the configuration in which `arguments`, wherever they stand, name copies below `cache`."""
    if isinstance(node, list):
        return [with_local_copies(each, cache, arguments) for each in node]
    if not isinstance(node, Mapping):
        return node
    return {
        name: copy_to_node(value, cache)
        if name in arguments and isinstance(value, str) and value
        else with_local_copies(value, cache, arguments)
        for name, value in node.items()
    }


def copy_to_node(place: str, cache: Path) -> str:
    """Where on this node's disk the files of `place` lie, which is a folder, a file in one, or a pattern in one.

    The first process to come copies, the others wait for it; the lock of one that is killed is gone with it, and the
    files that it had copied whole are kept.  A single file, such as captions.jsonl, comes with all of its folder.  A
    place without files is given back: scenes that are still to be drawn are drawn there, and what is wrong with a path
    is told of the path that was typed.
    ValueError where the disk has no room, or where a file was not, byte for byte, what came to lie on the disk.
    """
    source = Path(place).expanduser().absolute()
    folder = source if source.is_dir() else source.parent
    pattern = ALL if source.exists() else source.name
    files = _list_files(folder, pattern)
    if not files:
        return place
    copy = cache.expanduser().absolute() / _name_of(folder, pattern, files)
    with _locked(copy.with_name(f"{copy.name}.lock")):
        if not _is_whole(copy, files):
            _copy(folder, copy, files)
    return str(copy if folder == source else copy / source.name)


def _list_files(folder: Path, pattern: str) -> Files:
    """Notes that this package keeps beside data are no data.  Links stay links, for some sources refuse those that lead
    out of their folder; to what does not come along they lead by its whole path.
    """
    files: Files = {}
    for path in sorted(folder.glob(pattern)):
        name = path.relative_to(folder)
        if NOTES in name.parts:
            continue
        if path.is_symlink():
            target = path.resolve()
            comes_along = pattern == ALL and target.is_relative_to(folder.resolve())
            files[str(name)] = os.path.relpath(target, path.parent.resolve()) if comes_along else str(target)
        elif path.is_file():
            files[str(name)] = file_stamp(path)
    return files


def _name_of(folder: Path, pattern: str, files: Files) -> str:
    told = json.dumps([str(folder), pattern, files], sort_keys=True)
    return f"{folder.name or 'data'}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_whole(copy: Path, files: Files) -> bool:
    """A copy is published by a rename when it is whole; a file of it that was touched since makes it none."""
    return copy.is_dir() and all(_is_same(copy / name, told) for name, told in files.items())


def _is_same(file: Path, told: dict[str, int] | str) -> bool:
    if isinstance(told, str):
        return file.is_symlink() and os.readlink(file) == told
    return file.is_file() and not file.is_symlink() and file_stamp(file) == told


def _copy(folder: Path, copy: Path, files: Files) -> None:
    draft = copy.with_name(copy.name + PART)
    if copy.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
        os.rename(copy, draft)  # its files that are as they were need not come again
    draft.mkdir(exist_ok=True)
    missing = {name: told for name, told in files.items() if not _is_same(draft / name, told)}
    size = sum(told["size"] for told in missing.values() if not isinstance(told, str))
    _require_room(draft, folder, size)
    began = time.monotonic()
    for name, told in missing.items():
        target = draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if isinstance(told, str):
            target.symlink_to(told)
        else:
            _copy_file(folder / name, target, told)
    os.rename(draft, copy)
    seconds = time.monotonic() - began
    logger.info("%d files, %.0f MB, copied from %s to %s in %.0f s", len(missing), size / 1e6, folder, copy, seconds)


def _require_room(draft: Path, folder: Path, size: int) -> None:
    free = shutil.disk_usage(draft).free
    if size + SPARE_BYTES > free:
        raise ValueError(
            f"the data in {folder} take another {size / 1e6:.0f} MB, and {draft.parent} has {free / 1e6:.0f} MB free: "
            "make room (copies of other data there may be removed), or leave out launcher.local_cache"
        )


def _copy_file(source: Path, target: Path, stamp: dict[str, int]) -> None:
    """Whole and right before it bears the time of its source, by which it is known."""
    digest = hashlib.sha256()
    with os.fdopen(open_regular(source), "rb") as original, target.open("xb") as written:
        while chunk := original.read(_CHUNK):
            digest.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # read it again from the disk
    if file_stamp(source) != stamp:
        raise ValueError(f"{source} has changed while it was copied to {target}: start the run again")
    if sha256_of(target) != digest.hexdigest():
        raise ValueError(f"{target} is not what was read from {source}: is the disk below launcher.local_cache sound?")
    os.utime(target, ns=(stamp["modified_ns"], stamp["modified_ns"]))
