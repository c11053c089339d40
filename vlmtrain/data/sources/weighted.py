"""A source whose samples count more or less in the loss than those of others."""

from dataclasses import replace

from vlmtrain.data.record import Record
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.view import View


class Weighted(View):
    """`source`, every sample of which has `weight` in the loss (Flamingo's 1.0, 0.2, 0.2, 0.03, arXiv 2204.14198)."""

    def __init__(self, source: Source, weight: float) -> None:
        if not weight > 0:
            raise ValueError(f"{source.name} has weight {weight} in the loss; give one above 0, or leave it out.")
        super().__init__(source)
        self.weight = weight

    def change(self, index: int, record: Record) -> Record:
        return replace(record, weight=record.weight * self.weight)
