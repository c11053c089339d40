"""A part of a source that looks like a source."""

import hashlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmtrain.data.record import Record
from vlmtrain.data.sources.base import Source


class Subset:
    """The samples of `source` at `indices`, in that order."""

    def __init__(self, source: Source, indices: ArrayLike, name: str) -> None:
        self.source = source
        self.indices: NDArray[np.int64] = np.asarray(indices, dtype=np.int64)
        self.name = f"{source.name} ({name})"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.source.fingerprint.encode() + self.indices.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.indices)

    def key(self, index: int) -> str:
        return self.source.key(int(self.indices[index]))

    def read(self, index: int) -> Record:
        return self.source.read(int(self.indices[index]))
