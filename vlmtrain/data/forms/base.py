"""What a record becomes: the parts, in reading order, that the model sees and learns to write."""

from typing import Protocol

from vlmtrain.data.record import Record
from vlmtrain.layout import Part


class Form(Protocol):
    """Record -> parts.  Every Visual among the parts stands for the image of the record."""

    def parts(self, record: Record, key: int) -> list[Part]:
        """For training; `key` decides what is left to chance.  BrokenSample where there is nothing to learn."""
        ...

    def prompt_parts(self, record: Record) -> list[Part]:
        """What the model sees when it shall go on by itself."""
        ...
