"""A source whose samples count more or less in the loss than those of others."""

from dataclasses import replace

from vlmtrain.data.record import Record
from vlmtrain.data.sources.base import Source


class Weighted:
    """`source`, every sample of which has `weight` in the loss (Flamingo's 1.0, 0.2, 0.2, 0.03, arXiv 2204.14198)."""

    def __init__(self, source: Source, weight: float) -> None:
        if not weight > 0:
            raise ValueError(f"{source.name} has weight {weight} in the loss; give one above 0, or leave it out.")
        self.source = source
        self.weight = weight

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
        record = self.source.read(index)
        return replace(record, weight=record.weight * self.weight)
