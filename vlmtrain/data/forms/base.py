"""What a record becomes: the parts, in reading order, that the model sees and learns to write."""

from typing import Protocol

from vlmtrain.data.record import Record
from vlmtrain.layout import Part


class Form(Protocol):
    """Record -> parts.  A Visual among the parts says which of the record's images it stands for.

    A form that makes several images one item, a video, says in `max_frames` how many at most; others need not.
    """

    def parts(self, record: Record, key: int) -> list[Part]:
        """For training; `key` decides what is left to chance.  BrokenSample where there is nothing to learn."""
        ...

    def prompt_parts(self, record: Record) -> list[Part]:
        """What the model sees when it shall go on by itself."""
        ...


def max_frames_of(form: Form) -> int:
    """How many images an item of this form may have."""
    return int(getattr(form, "max_frames", 1))
