"""What a distribution shift is: a record goes in, and comes out with images that look otherwise and mean the same."""

import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmtrain.data.decode import UndecodableImage, decode_image
from vlmtrain.data.keys import key_of
from vlmtrain.data.record import BrokenSample, Record

Shift = Callable[[Record], Record]
Field = NDArray[np.floating[Any]]

_MOST_PIXELS = 64_000_000


class PixelShift(ABC):
    """A shift that changes pixels and knows nothing of what they show; what it draws is keyed by the record's key."""

    def __call__(self, record: Record) -> Record:
        return replace(record, images=[self._shift(record, place) for place in range(len(record.images))])

    @abstractmethod
    def change(self, pixels: Field, generator: np.random.Generator) -> Field:
        """[h, w, 3] float32 from 0 to 1 -> the same shape; what lies outside is cut off."""

    def _shift(self, record: Record, place: int) -> bytes:
        try:
            pixels = decode_image(record.images[place], _MOST_PIXELS, 1)
        except UndecodableImage as error:
            raise BrokenSample(record.key, str(error)) from None
        key = key_of("shift", type(self).__name__, record.key, place)
        changed = self.change(pixels.astype(np.float32) / 255, np.random.Generator(np.random.Philox(key=key)))
        return encode_png(changed)


def encode_png(pixels: Field) -> bytes:
    """[h, w, 3] from 0 to 1, without loss but of rounding."""
    held = io.BytesIO()
    Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8)).save(held, format="PNG", compress_level=1)
    return held.getvalue()
