"""What sources have in common whose samples are the objects of a file of JSON."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmtrain.data.record import Record
from vlmtrain.data.sources.json_file import Fields, JsonFile


class JsonSource(ABC):
    """One record per object of `file`; the files that the objects name lie in `root`, or beside it (see JsonFile)."""

    def __init__(self, file: Path, remedy: str, root: Path | None = None) -> None:
        self.name = str(file)
        self.stem = file.stem
        keys: list[bytes] = []

        def check(fields: Fields) -> list[str]:
            names = self.files_in(fields)
            keys.append(self.key_of(fields, len(keys)).encode())
            return names

        self.objects = JsonFile(file, check, remedy, root)
        self._keys: NDArray[np.bytes_] = np.array(keys)
        self.fingerprint = self.objects.fingerprint

    @abstractmethod
    def files_in(self, fields: Fields) -> list[str]:
        """The files that an object names, checked; ValueError says what is wrong with it."""

    @abstractmethod
    def record(self, key: str, fields: Fields) -> Record:
        """What an object that was found right becomes, with its files."""

    def key_of(self, fields: Fields, number: int) -> str:
        """The name of an object, for which files_in has found nothing wrong: its id, or its place in the file."""
        return str(fields.get("id", f"{self.stem}/{number}"))

    def __len__(self) -> int:
        return len(self.objects)

    def key(self, index: int) -> str:
        return str(self._keys[index].decode())

    def read(self, index: int) -> Record:
        return self.record(self.key(index), self.objects.fields(index))


def find_json_file(path: str, name: str, remedy: str) -> Path:
    """The file `name` in the folder `path`, or the file `path` itself; ValueError with `remedy` where there is none."""
    place = Path(path).expanduser()
    file = place / name if place.is_dir() else place
    if not file.is_file():
        raise ValueError(f"there is no {file.absolute()}: {remedy}")
    return file
