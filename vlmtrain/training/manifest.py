"""manifest.json: what a published folder holds, to the bit, so that damage done later is seen."""

import hashlib
import json
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published folder; ValueError where there is none that can be understood."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: {MANIFEST} cannot be read ({error})") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{folder}: {MANIFEST} lists no files")
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{folder}: written in format {manifest.get('format')}, this vlmtrain reads format {FORMAT}")
    return manifest


def find_damage(folder: Path) -> str | None:
    """What is wrong with a published folder, in words; None when every file is what its manifest says."""
    try:
        manifest = read_manifest(folder)
        if manifest.get("sha256") != digest_of(manifest):
            return f"{MANIFEST} is not what was written"
        return next(filter(None, (_damage_of(folder, name, facts) for name, facts in manifest["files"].items())), None)
    except (ValueError, OSError) as error:
        return str(error)


def is_complete(folder: Path) -> bool:
    """Are all files there in full length?  Reads none of them: for what was verified before."""
    try:
        files = read_manifest(folder)["files"]
        return all((folder / name).stat().st_size == facts["bytes"] for name, facts in files.items())
    except (ValueError, OSError):
        return False


def digest_of(manifest: dict[str, Any]) -> str:
    """sha256 over everything in the manifest but itself: a flipped bit in a number is damage too."""
    facts = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_file(folder: Path, name: str, facts: dict[str, Any]) -> None:
    """ValueError where a file of a published folder is not what the manifest says: `facts`, of its `files`."""
    damage = _damage_of(folder, name, facts)
    if damage:
        raise ValueError(f"{folder}: {damage}")


def _damage_of(folder: Path, name: str, facts: dict[str, Any]) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    size = path.stat().st_size
    if size != facts["bytes"]:
        return f"{name} has {size} bytes, not {facts['bytes']}"
    return None if sha256_of(path) == facts["sha256"] else f"{name} is not what was written (sha256 differs)"
