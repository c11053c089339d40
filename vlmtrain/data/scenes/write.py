"""Prepares a folder of rendered scenes once, whole or not at all, however many processes ask for it."""

import json
import logging
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from vlmtrain.data.scenes.formats import WRITERS, LinesFormat, Run, Written, join_jsonl
from vlmtrain.data.scenes.records import TWINS
from vlmtrain.data.scenes.world import SPLITS

MANIFEST = "dataset.json"
VERSION = 2
"""Raised whenever the same seed would give other scenes, pictures or words."""

_MOST_SINGLE_SYNCS = 256
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Layout:
    """How big the pictures are and how many go into one file."""

    image_size: int = 128
    images_per_file: int = 1000


def prepare(
    folder: Path | str,
    format: str | LinesFormat,
    seed: int,
    counts: Mapping[str, int],
    num_processes: int = 2,
    layout: Layout | None = None,
) -> Path:
    """The folder, holding these many examples of each split: at once if it is whole, rendered first otherwise.

    It is written beside its place and renamed when whole, so that a folder of that name is never half written; of two
    processes that prepare the same one, the later uses the earlier's.
    """
    layout = layout or Layout()
    _check_request(format, counts, num_processes, layout)
    folder = Path(folder)
    wanted = _header(format, seed, counts, layout)
    if _holds(folder, wanted):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        files = []
        for split, count in counts.items():
            files += write_split(draft, format, seed, split, count, num_processes, layout)
        _write_manifest(draft, wanted, files)
        _sync(draft)
        draft.chmod(0o755)
        _publish(draft, folder, wanted)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def write_split(
    folder: Path | str,
    format: str | LinesFormat,
    seed: int,
    split: str,
    count: int,
    num_processes: int = 1,
    layout: Layout | None = None,
) -> list[Written]:
    """Writes one split's files straight into the folder and says which; prepare adds the manifest and the safety."""
    layout = layout or Layout()
    _check_request(format, {split: count}, num_processes, layout)
    step = layout.images_per_file
    starts = range(0, count, step)
    runs = [
        Run(str(folder), seed, split, first, min(first + step, count), number, len(starts), layout.image_size)
        for number, first in enumerate(starts)
    ]
    _logger.info("rendering %d scenes of split %s with %d processes", count, split, num_processes)
    files = [file for files in _write_all(format, runs, num_processes) for file in files]
    if isinstance(format, str) and format != "jsonl":
        return files
    lines = "captions.jsonl" if isinstance(format, str) else format.file
    return [file for file in files if file.path.endswith(".jpg")] + [join_jsonl(runs, lines)]


def verify(folder: Path | str) -> None:
    """Reads every file and raises a ValueError if one is not, byte for byte, what was written."""
    folder = Path(folder)
    for path, expected in _read_manifest(folder)["files"].items():
        target = folder / path
        if not target.is_file():
            raise ValueError(f"{target} is missing: remove {folder} and prepare it again")
        if sha256(target.read_bytes()).hexdigest() != expected["sha256"]:
            raise ValueError(f"{target} has changed since it was written: remove {folder} and prepare it again")


def _write_all(format: str | LinesFormat, runs: Sequence[Run], num_processes: int) -> list[list[Written]]:
    """Fresh interpreters do the work, because a fork of a process that holds threads can hang."""
    writer = WRITERS[format] if isinstance(format, str) else format
    if num_processes == 1 or len(runs) == 1:
        return [writer(run) for run in runs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_processes, len(runs)), mp_context=context) as pool:
        return list(pool.map(writer, runs))


def _check_request(format: str | LinesFormat, counts: Mapping[str, int], num_processes: int, layout: Layout) -> None:
    if isinstance(format, str) and format not in WRITERS:
        raise ValueError(f"there is no format {format!r}: use one of {', '.join(WRITERS)}")
    if not counts:
        raise ValueError("no splits were asked for: give a count for at least one")
    for split, count in counts.items():
        if split not in (*SPLITS, TWINS):
            raise ValueError(f"there is no split {split!r}: use one of {', '.join((*SPLITS, TWINS))}")
        if count < 1:
            raise ValueError(f"split {split!r} would hold {count} examples: ask for 1 or more, or leave it out")
    if num_processes < 1 or layout.images_per_file < 1:
        raise ValueError(
            f"num_processes is {num_processes} and images_per_file {layout.images_per_file}: both must be 1 or more"
        )


def _header(format: str | LinesFormat, seed: int, counts: Mapping[str, int], layout: Layout) -> dict[str, Any]:
    return {
        "version": VERSION,
        "format": format if isinstance(format, str) else format.name,
        "seed": seed,
        "counts": dict(counts),
        "image_size": layout.image_size,
        "images_per_file": layout.images_per_file,
    }


def _holds(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the folder holds the data set, whole; an error if it holds something else, which is never overwritten."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    manifest = _read_manifest(folder)
    different = [
        f"{name} {manifest.get(name)} and not {value}" for name, value in wanted.items() if manifest.get(name) != value
    ]
    if different:
        raise ValueError(f"{folder} holds a data set of {', '.join(different)}: remove it or choose another folder")
    for path, expected in manifest["files"].items():
        target = folder / path
        if not target.is_file() or target.stat().st_size != expected["bytes"]:
            raise ValueError(f"{target} is missing or cut short: remove {folder} and prepare it again")
    return True


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} is there but holds no {MANIFEST}: remove it or choose another folder") from None
    return manifest


def _write_manifest(folder: Path, header: Mapping[str, Any], files: Sequence[Written]) -> None:
    listed = {file.path: {"bytes": file.size, "sha256": file.sha256} for file in files}
    (folder / MANIFEST).write_text(json.dumps({**header, "files": listed}, indent=1) + "\n")


def _sync(folder: Path) -> None:
    """Makes the files outlast a power cut; for many small files one call for the whole machine is faster."""
    paths = list(folder.rglob("*"))
    if len(paths) > _MOST_SINGLE_SYNCS:
        os.sync()
        return
    for path in (*paths, folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(draft: Path, folder: Path, wanted: Mapping[str, Any]) -> None:
    """Renames the draft into place, unless another process did so first and its data set is the one wanted."""
    try:
        draft.rename(folder)
    except OSError:
        if not _holds(folder, wanted):
            raise
        _logger.info("another process has prepared %s meanwhile; its data set is used", folder)
