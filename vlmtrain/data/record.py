"""What a source hands over: one sample as it lies on disk, undecoded."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Record:
    """One sample.  `image` is the encoded file (JPEG, PNG, WebP), empty for plain text; decoding comes later."""

    key: str  # names the sample in logs, in quarantine.jsonl and in the choice of the held-out part
    image: bytes
    captions: list[str]
    extra: dict[str, Any] = field(default_factory=dict)  # whatever else the data says of it: questions, scene, ...
    weight: float = 1.0  # in the loss; a source's, as a rule


class BrokenSample(ValueError):
    """This one sample cannot be used and never will be: it is set aside, counted and replaced."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"sample {self.key!r}: {self.reason}"
