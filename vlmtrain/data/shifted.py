"""A data set with shifted versions of one of its splits: what becomes of a figure where images look otherwise?"""

import hashlib
from typing import Any

from vlmtrain.data.record import Record
from vlmtrain.data.shifts.base import Shift
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.view import View


class ShiftedImages(View):
    """The records of `source` as `shift` changes them."""

    def __init__(self, source: Source, shift: Shift, kind: str) -> None:
        super().__init__(source)
        self._shift, self._kind = shift, kind

    @property
    def name(self) -> str:
        return f"{self.source.name}, {self._kind}"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self._kind} {self.source.fingerprint}".encode()).hexdigest()

    def change(self, index: int, record: Record) -> Record:
        return self._shift(record)


class Shifted:
    """`data` with the further splits `<split>/<name of the shift>`, one for each of `shifts`; classes are its own."""

    def __init__(self, data: Any, shifts: dict[str, Shift], split: str = "test") -> None:
        if split not in data.evaluation:
            raise ValueError(f"there is no split {split!r} to shift: use one of {', '.join(data.evaluation)}")
        if not shifts or any("/" in name for name in shifts):
            raise ValueError(f"shifts={list(shifts)} must name a shift at least, without /")
        self.train: Source = data.train
        self.together: int = data.together
        self.classes, self.templates = data.classes, data.templates
        base = data.evaluation[split]
        self.evaluation: dict[str, Source] = {
            **data.evaluation,
            **{f"{split}/{name}": ShiftedImages(base, shift, name) for name, shift in shifts.items()},
        }
