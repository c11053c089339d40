"""A folder of images about which nothing is written."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.files import read_regular

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


class ImageFolder:
    """All images in a folder and the folders below it, by their paths; links that lead out of it are left out."""

    def __init__(self, path: str) -> None:
        root = Path(path).expanduser()
        if not path or not root.is_dir():
            raise ValueError(f"there is no folder {path!r}: name one with images in it ({', '.join(SUFFIXES)})")
        self.name = str(root)
        self.root = root.resolve()
        names = sorted(
            file.relative_to(root).as_posix()
            for file in root.rglob("*")
            if file.suffix.lower() in SUFFIXES and file.is_file() and file.resolve().is_relative_to(self.root)
        )
        if not names:
            raise ValueError(f"{root.absolute()} and the folders below it hold no image ({', '.join(SUFFIXES)})")
        listed = "\n".join(f"{name} {(root / name).stat().st_size}" for name in names)
        self.fingerprint = hashlib.sha256(listed.encode()).hexdigest()
        self._names: NDArray[np.bytes_] = np.array([name.encode() for name in names])

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        return str(self._names[index].decode())

    def read(self, index: int) -> Record:
        key = self.key(index)
        try:
            return Record(key, [read_regular(self.root / key)], [])
        except (FileNotFoundError, ValueError) as error:
            raise BrokenSample(key, f"it cannot be read in {self.root}: {error}") from None
