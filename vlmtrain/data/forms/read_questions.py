"""A text to read and questions about it: what a language model learns to answer from before it is given images."""

from vlmtrain.data.forms.questions import Questions
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text


class ReadQuestions:
    """The record's text, then questions as in `Questions`; only answers are learned.

    Of several texts each reading shows one.  `separator` stands behind the text, where a visual prompt would end.
    """

    def __init__(self, separator: str = "", template: str = "{question}", max_turns: int = 1) -> None:
        self.separator = separator
        self.questions = Questions(template, max_turns)

    def parts(self, record: Record, key: int) -> list[Part]:
        return [self._text(record, key), *self.questions.parts(record, key)]

    def prompt_parts(self, record: Record) -> list[Part]:
        return [self._text(record, 0), *self.questions.prompt_parts(record)]

    def _text(self, record: Record, key: int) -> Part:
        texts = [text.rstrip() for text in record.captions if text.strip()]
        if not texts:
            raise BrokenSample(record.key, "it has no text to read")
        return Text(texts[key % len(texts)] + self.separator, supervised=False)
