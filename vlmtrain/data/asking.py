"""A record with several questions, given once for each of them: how an evaluation asks more than the first."""

import hashlib
from dataclasses import replace

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.base import Source


class OneByOne:
    """`times` passes over `source`; in pass n a record has its n-th question and no other.

    A record with fewer questions is a broken sample in the passes that it has none for.  Records that follow each
    other have different images, so that swapping them is a control.
    """

    def __init__(self, source: Source, times: int) -> None:
        if times < 1:
            raise ValueError(f"each record is asked times={times} questions: ask at least one")
        self.source = source
        self.times = times
        self.name = f"{source.name} ({times} questions each)"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.source.fingerprint}\x1f{self.times}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.source) * self.times

    def key(self, index: int) -> str:
        number, record = divmod(index, len(self.source))
        return f"{self.source.key(record)}#{number}"

    def read(self, index: int) -> Record:
        number, place = divmod(index, len(self.source))
        record = self.source.read(place)
        questions = record.extra.get("questions") or []
        if number >= len(questions):
            raise BrokenSample(self.key(index), f"it has {len(questions)} questions")
        return replace(record, key=self.key(index), extra={**record.extra, "questions": [questions[number]]})
