"""The control of a whole run: the same texts, each with another sample's image."""

import hashlib
from dataclasses import replace

from vlmtrain.data.record import Record
from vlmtrain.data.sources.base import Source


class ShuffledImages:
    """`source` with the images moved half of it further on: a model can learn what texts are like, and nothing to see.

    Every image is seen as often as before, and no sample keeps its own.
    """

    def __init__(self, source: Source) -> None:
        if len(source) < 2:
            raise ValueError(f"{source.name} has {len(source)} sample: images can be shuffled among two or more")
        self.source = source
        self.name = f"{source.name} with shuffled images"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"shuffled {self.source.fingerprint}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        return self.source.key(index)

    def read(self, index: int) -> Record:
        giver = (index + len(self.source) // 2) % len(self.source)
        return replace(self.source.read(index), image=self.source.read(giver).image)
