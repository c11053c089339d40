"""The seam to data on disk: samples by number."""

from typing import Protocol, runtime_checkable

from vlmtrain.data.record import Record


@runtime_checkable
class Source(Protocol):
    """Random access to samples.  Pickles small and reopens its files itself, so that workers can have copies.

    A sample that is broken for good raises BrokenSample; an OSError means that the storage failed and may be asked
    again; a ValueError means that the data is not what it was when it was indexed.
    """

    @property
    def name(self) -> str:
        """What to call it in logs and errors: mostly its path."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes when the data changes; a run refuses to resume on other data."""
        ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """The key of the record at `index`, without reading it."""
        ...

    def read(self, index: int) -> Record: ...
