"""Pairs of an image and captions."""

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text, Visual


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
