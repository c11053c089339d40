"""Keeps what was learned of a data file, so that a second start need not read the file again.

The notes lie beside the data in .vlmtrain/, or, where that cannot be written, in the user's cache folder.
"""

import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

NOTES = ".vlmtrain"
_CHUNK = 1 << 20


def file_stamp(path: Path) -> dict[str, int]:
    """What changes when a file is written: enough to trust notes, not to trust contents."""
    status = path.stat()
    return {"size": status.st_size, "modified_ns": status.st_mtime_ns}


def sha256_of(path: Path) -> str:
    """Hex digest of the whole file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def recall(path: Path, kind: str) -> dict[str, Any] | None:
    """The notes on the file at `path`, of the newest place that has readable ones; None without."""
    for place in _places(path, kind):
        try:
            notes = json.loads(place.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(notes, dict):
            return notes
    return None


def remember(path: Path, kind: str, notes: dict[str, Any]) -> None:
    """Write the notes on `path`; a kill while writing leaves the old ones."""
    for place in _places(path, kind):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=place.parent, delete=False, suffix=".part") as part:
                json.dump(notes, part, separators=(",", ":"))
            os.replace(part.name, place)
        except OSError as error:
            logger.debug("no notes at %s: %s", place, error)
            continue
        return
    logger.warning("the index of %s could be kept nowhere: it will be made anew at every start", path)


def _places(path: Path, kind: str) -> list[Path]:
    path = path.absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlmtrain"
    name = hashlib.sha256(str(path).encode()).hexdigest()[:24]
    return [path.parent / NOTES / f"{path.name}.{kind}.json", cache / f"{name}.{kind}.json"]
