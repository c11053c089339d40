"""What a source hands over: one sample as it lies on disk, undecoded."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Record:
    """One sample.  `images` are encoded files (JPEG, PNG, WebP), none for plain text; decoding comes later."""

    key: str  # names the sample in logs, in quarantine.jsonl and in the choice of the held-out part
    images: list[bytes]  # in reading order; several for documents and for the frames of a video
    captions: list[str]
    extra: dict[str, Any] = field(default_factory=dict)  # whatever else the data says of it: questions, scene, ...
    weight: float = 1.0  # in the loss; a source's, as a rule
    origin: str = ""  # name of the source that it comes from, where several are mixed

    @property
    def image(self) -> bytes:
        """The first image, empty for plain text."""
        return self.images[0] if self.images else b""


class BrokenSample(ValueError):
    """This one sample cannot be used and never will be: it is set aside, counted and replaced."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"sample {self.key!r}: {self.reason}"
