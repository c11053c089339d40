"""Folders that are there as a whole or not at all: staged, fsynced, then renamed into place."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlmtrain.training.manifest import FORMAT, MANIFEST, digest_of

STAGING = ".staging-"


def publish(target: Path, files: Iterable[tuple[str, bytes]], facts: dict[str, Any]) -> None:
    """Write `files` and a manifest with `facts` as folder `target`, which must not exist yet.

    Order of events: every file written and fsynced, the manifest written and fsynced, the staging folder fsynced,
    rename, parent fsynced.  A kill or a power loss at any moment leaves `target` complete or absent.  On an error the
    staged files are removed.
    """
    if target.exists():
        raise ValueError(f"{target} is published already and is never overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.parent / f"{STAGING}{target.name}"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        listed = {}
        for name, content in files:
            write_durably(staging / name, content)
            listed[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        manifest = {"format": FORMAT, **facts, "files": listed}
        manifest["sha256"] = digest_of(manifest)
        write_durably(staging / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
        sync_folder(staging)
        os.rename(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync_folder(target.parent)


def write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in `folder`.  The run lock makes sure that none of them is alive."""
    for leftover in folder.glob(f"{STAGING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
