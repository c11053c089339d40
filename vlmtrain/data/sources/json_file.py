"""Objects in a file of JSON, one a line or all in one list, with the files that they name beside it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.fields import parse_object
from vlmtrain.data.sources.files import OpenFiles, read_regular

_MAX_FAULTS_SHOWN = 5
_BLANK = " \t\r\n"

Fields = dict[str, Any]


class JsonFile:
    """The objects of `file`, each read when it is asked for, and files inside `root`.

    `check` gives the files that an object names, or raises a ValueError that says what is wrong with it.  An object
    that cannot be used, a path out of the folder or a link that leads out of it stop the run at its start, by line; a
    file that is missing breaks its own sample only.
    """

    def __init__(self, file: Path, check: Callable[[Fields], list[str]], remedy: str, root: Path | None = None) -> None:
        self.file = file
        self.root = (root or file.parent).resolve()
        content = file.read_bytes()
        self._checked_folders: set[str] = set()
        digest, spans, faults = hashlib.sha256(content), [], list[str]()
        sizes: list[int] = []
        for number, (offset, raw) in enumerate(_objects(content, file), start=1):
            try:
                names = check(parse_object(raw))
                sizes += [self._size(name) for name in names]
                spans.append((offset, len(raw)))
            except _LeadsOut:
                raise
            except ValueError as error:
                faults.append(f"{self._where(content, offset, number)}: {error}")
        if faults:
            shown = "; ".join(faults[:_MAX_FAULTS_SHOWN])
            what = "lines" if file.suffix != ".json" else "entries"
            raise ValueError(f"{len(faults)} {what} of {file} cannot be used: {shown}. Mend or remove them.")
        if not spans:
            raise ValueError(f"{file} has no line: {remedy}")
        digest.update(np.array(sizes, dtype=np.int64).tobytes())
        self.fingerprint = digest.hexdigest()
        self._spans = np.array(spans, dtype=np.int64)
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self._spans)

    def fields(self, index: int) -> Fields:
        """The object at `index`."""
        offset, length = self._spans[index].tolist()
        return parse_object(self._files.read(self.file, offset, length))

    def read_file(self, name: str, key: str) -> bytes:
        """The whole of a file inside the folder; BrokenSample of `key` where there is none."""
        self._check_inside(name)
        which = "" if name == key else f"{name}: "
        try:
            return read_regular(self.root / name)
        except FileNotFoundError:
            raise BrokenSample(key, f"{which}there is no such file in {self.root}") from None
        except ValueError as error:
            raise BrokenSample(key, f"{which}{error}") from None

    def _where(self, content: bytes, offset: int, number: int) -> str:
        if self.file.suffix == ".json":
            return f"entry {number}"
        line = content.count(b"\n", 0, offset) + 1
        return f"line {line}"

    def _size(self, name: str) -> int:
        """Bytes of a file, -1 where it is missing."""
        folder = os.path.dirname(name)
        if folder not in self._checked_folders:
            self._check_inside(folder)
            self._checked_folders.add(folder)
        place = os.path.join(self.root, name)
        if os.path.islink(place):
            self._check_inside(name)
        return os.path.getsize(place) if os.path.exists(place) else -1

    def _check_inside(self, name: str) -> None:
        if not Path(os.path.realpath(self.root / name)).is_relative_to(self.root):
            raise _LeadsOut(f"{self.file}: the image {name!r} is a link out of {self.root}: copy the file")


class _LeadsOut(ValueError):
    """No fault of a line: the whole folder is not to be trusted."""


def check_file_name(name: object, field: str = "image") -> str:
    """The path of a file inside the folder; ValueError says what is wrong with it."""
    if not isinstance(name, str) or not name:
        raise ValueError(f'"{field}" must be the path of a file in the folder, this is {str(name)[:60]!r}')
    if "://" in name:
        raise ValueError(f"the image {name[:120]!r} is a web address: download it first")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"the image {name[:120]!r} lies outside the folder: use a path relative to it, without '..'")
    return name


def _objects(content: bytes, file: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of every object."""
    if file.suffix == ".json":
        yield from _in_list(content, file)
        return
    position = 0
    for line in content.split(b"\n"):
        if line.strip():
            yield position, line
        position += len(line) + 1


def _in_list(content: bytes, file: Path) -> Iterator[tuple[int, bytes]]:
    """Entries of one JSON list, found without keeping them."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    decoder = json.JSONDecoder()
    place = _skip(text, 0)
    if text[place : place + 1] != "[":
        raise ValueError(f"{file} must hold one list [...] of entries; write one entry per line in a .jsonl otherwise")
    place, byte, before = _skip(text, place + 1), 0, 0
    while text[place : place + 1] != "]":
        try:
            _, end = decoder.raw_decode(text, place)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{file} is not valid JSON after character {place}: {error}") from None
        byte += len(text[before:place].encode())
        raw = text[place:end].encode()
        yield byte, raw
        byte, before = byte + len(raw), end
        place = _skip(text, end)
        if text[place : place + 1] == ",":
            place = _skip(text, place + 1)
        elif text[place : place + 1] != "]":
            raise ValueError(f"{file} is not valid JSON: ',' or ']' is missing at character {place}")


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _BLANK:
        place += 1
    return place
