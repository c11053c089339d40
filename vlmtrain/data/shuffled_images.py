"""The control of a whole run: the same texts, each with another sample's image."""

import hashlib
from dataclasses import replace

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.view import View


class ShuffledImages(View):
    """`source` with the images moved half of it further on: a model can learn what texts are like, and nothing to see.

    No sample keeps its own; where all have equally many and different ones, every image is seen as often as before.
    """

    def __init__(self, source: Source) -> None:
        if len(source) < 2:
            raise ValueError(f"{source.name} has {len(source)} sample: images can be shuffled among two or more")
        super().__init__(source)

    @property
    def name(self) -> str:
        return f"{self.source.name} with shuffled images"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"shuffled {self.source.fingerprint}".encode()).hexdigest()

    def change(self, index: int, record: Record) -> Record:
        return replace(record, images=self._others(index, record))

    def _others(self, index: int, record: Record) -> list[bytes]:
        """As many images as the record has, of the next records that have others."""
        wanted, images = len(record.images), list[bytes]()
        giver = index + len(self.source) // 2
        for _ in range(len(self.source)):
            if len(images) >= wanted:
                break
            other = self.source.read(giver % len(self.source))
            images += other.images if other.images != record.images else []
            giver += 1
        if len(images) < wanted:
            raise BrokenSample(record.key, f"all of {self.source.name} hold not {wanted} other images")
        return images[:wanted]
