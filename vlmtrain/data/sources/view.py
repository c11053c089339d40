"""A source whose records are changed as they are read."""

from abc import ABC, abstractmethod

from vlmtrain.data.record import Record
from vlmtrain.data.sources.base import Source


class View(ABC):
    """As many records as `source`, under the same keys, each read through `change`.

    Name and fingerprint are the source's; a view that shows other things than the source says so in both.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @abstractmethod
    def change(self, index: int, record: Record) -> Record:
        """What is seen of the record at `index`."""

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def read(self, index: int) -> Record:
        return self.change(index, self.source.read(index))
