"""Plain text without images."""

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text


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
