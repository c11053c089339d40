"""Folders that are there as a whole or not at all: staged, fsynced, then renamed into place."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlmtrain.training.manifest import FORMAT, MANIFEST, digest_of, sha256_of
from vlmtrain.training.tensor_file import Content, sync_folder, write_durably

STAGING = ".staging-"
Listed = dict[str, dict[str, Any]]  # file -> sha256 and bytes


def publish(target: Path, files: Iterable[tuple[str, Content]], facts: dict[str, Any]) -> None:
    """Write `files` and a manifest with `facts` as folder `target`, which must not exist yet.

    Order of events: every file written and fsynced, the manifest written and fsynced, the staging folder fsynced,
    rename, parent fsynced.  A kill or a power loss at any moment leaves `target` complete or absent.  On an error the
    staged files are removed.
    """
    staging = stage(target)
    try:
        seal(staging, target, write_files(staging, files), facts)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def staging_of(target: Path) -> Path:
    return target.parent / f"{STAGING}{target.name}"


def stage(target: Path) -> Path:
    """An empty folder beside `target`, to write into."""
    if target.exists():
        raise ValueError(f"{target} is published already and is never overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = staging_of(target)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    return staging


def write_files(staging: Path, files: Iterable[tuple[str, Content]]) -> Listed:
    """Write files durably, those of a subfolder (`part/file`) with its name; gives them with their hashes."""
    listed: Listed = {}
    for name, content in files:
        path = staging / name
        if path.parent != staging:
            path.parent.mkdir(exist_ok=True)
        write_durably(path, content)
        if path.parent != staging:
            sync_folder(path.parent)
        listed[name] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    return listed


def seal(staging: Path, target: Path, listed: Listed, facts: dict[str, Any]) -> None:
    """Give a folder of written files its manifest, and its name."""
    manifest = {"format": FORMAT, **facts, "files": listed}
    manifest["sha256"] = digest_of(manifest)
    write_durably(staging / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    sync_folder(staging)
    os.rename(staging, target)
    sync_folder(target.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in `folder`.  The run lock makes sure that none of them is alive."""
    for leftover in folder.glob(f"{STAGING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
