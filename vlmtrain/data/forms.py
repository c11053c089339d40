"""What a record becomes: the parts, in reading order, that the model sees and learns to write."""

from typing import Protocol

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text, Visual


class Form(Protocol):
    """Record -> parts.  Every Visual among the parts stands for the image of the record."""

    def parts(self, record: Record, key: int) -> list[Part]:
        """For training; `key` decides what is left to chance.  BrokenSample where there is nothing to learn."""
        ...

    def prompt_parts(self, record: Record) -> list[Part]:
        """What the model sees when it shall go on by itself."""
        ...


class Captioning:
    """The image, a prompt if there is one, and one of the captions to be written."""

    def __init__(self, prompt: str = "") -> None:
        self.prompt = prompt

    def parts(self, record: Record, key: int) -> list[Part]:
        captions = [caption.strip() for caption in record.captions if caption.strip()]
        if not captions:
            raise BrokenSample(record.key, "it has no caption, or only empty ones")
        return [*self.prompt_parts(record), Text(captions[key % len(captions)])]

    def prompt_parts(self, record: Record) -> list[Part]:
        prompt: list[Part] = [Text(self.prompt, supervised=False)] if self.prompt else []
        return [Visual(), *prompt]


class TextDocuments:
    """Plain text to be written; there is no image.  Blanks before a document are part of it, those behind it are not.

    Where a document holds `separator` (the mark that begins a text, say), what stands before the last one is read and
    not learned to be written.
    """

    def __init__(self, separator: str | None = None) -> None:
        self.separator = separator

    def parts(self, record: Record, key: int) -> list[Part]:
        documents = [caption.rstrip() for caption in record.captions if caption.strip()]
        if not documents:
            raise BrokenSample(record.key, "the document is empty")
        document = documents[key % len(documents)]
        if self.separator is None or self.separator not in document:
            return [Text(document)]
        before, after = document.rsplit(self.separator, 1)
        return [Text(before + self.separator, supervised=False), Text(after)]

    def prompt_parts(self, record: Record) -> list[Part]:
        return []
