"""Records that are made when they are asked for: nothing is written to disk."""

import hashlib
from collections.abc import Callable

from vlmtrain.data.record import Record

_LOOKED_AT = 8


class MadeRecords:
    """Records that `make(seed, index)` makes, the same ones each time; `name` tells what they are.

    `make` must pickle: a function of a module, or a frozen dataclass with `__call__`.
    """

    def __init__(self, make: Callable[[int, int], Record], name: str, seed: int, num_records: int) -> None:
        if num_records < 1:
            raise ValueError(f"{name}: num_records={num_records}, at least one is needed")
        self.name = f"{name}, seed {seed}"
        self._make, self._seed, self._num_records = make, seed, num_records

    @property
    def fingerprint(self) -> str:
        """Of the first few records and how many there are."""
        digest = hashlib.sha256(f"{self.name}\x1f{self._num_records}".encode())
        for index in range(min(self._num_records, _LOOKED_AT)):
            record = self.read(index)
            for content in (*record.images, *(caption.encode() for caption in record.captions)):
                digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def __len__(self) -> int:
        return self._num_records

    def key(self, index: int) -> str:
        return f"{index:08d}"

    def read(self, index: int) -> Record:
        if not 0 <= index < self._num_records:
            raise IndexError(f"{self.name} has {self._num_records} records, there is no record {index}")
        return self._make(self._seed, index)
