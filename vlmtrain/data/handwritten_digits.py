"""Real digits that people wrote: the 1797 scans of 8 x 8 pixels that come with scikit-learn."""

import hashlib
import importlib.util
import io
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmtrain.data.numerals.strokes import NAMES
from vlmtrain.data.numerals_data import CLASS_TEMPLATES
from vlmtrain.data.record import Record
from vlmtrain.data.sources.base import Source
from vlmtrain.data.subset import Subset

_BRIGHTEST = 16  # a pixel is how many of 16 dots of the scan were inked


class DigitScans:
    """Each scan as a PNG, bright ink on black; the test part of UCI's optdigits (Alpaydin and Kaynak 1998)."""

    name = "handwritten digits of scikit-learn"

    @cached_property
    def _scans(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        from sklearn.datasets import load_digits  # an extra

        loaded = load_digits()
        return loaded.images, loaded.target

    @cached_property
    def fingerprint(self) -> str:
        images, numbers = self._scans
        return hashlib.sha256(images.tobytes() + numbers.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._scans[1])

    def key(self, index: int) -> str:
        return f"scan-{index:04d}"

    def number(self, index: int) -> int:
        """Which digit it is."""
        return int(self._scans[1][index])

    def read(self, index: int) -> Record:
        grey = (self._scans[0][index] * (255 / _BRIGHTEST) + 0.5).astype(np.uint8)
        held = io.BytesIO()
        Image.fromarray(grey).convert("RGB").save(held, format="PNG")
        name = NAMES[self.number(index)]
        return Record(self.key(index), [held.getvalue()], [CLASS_TEMPLATES[0].format(name)], {"class": name})


class HandwrittenDigits:
    """To classify by the names of the numbers.  With `num_shots`, so many of each digit are there to learn from, and
    are left out of what is evaluated."""

    together = 1
    classes = NAMES
    templates = CLASS_TEMPLATES

    def __init__(self, num_shots: int = 0) -> None:
        if num_shots < 0:
            raise ValueError(f"num_shots={num_shots} must be 0 or more")
        if importlib.util.find_spec("sklearn") is None:
            raise ValueError("the digits come with scikit-learn: pip install 'vlmtrain[evaluation]'")
        scans = DigitScans()
        found: dict[int, list[int]] = {number: [] for number in range(len(NAMES))}
        for index in range(len(scans)):
            found[scans.number(index)].append(index)
        shots = sorted(index for of_number in found.values() for index in of_number[:num_shots])
        rest = sorted(index for of_number in found.values() for index in of_number[num_shots:])
        self.train: Source = Subset(scans, shots, "examples")
        self.evaluation: dict[str, Source] = {"handwritten": Subset(scans, rest, "evaluated")}
