"""Pairs of an image and captions."""

from vlmtrain.data.forms.drawn_caption import drawn_caption
from vlmtrain.data.record import Record
from vlmtrain.layout import Part, Text, Visual


class Captioning:
    """The image, a prompt if there is one, and one of the captions to be written."""

    def __init__(self, prompt: str = "") -> None:
        self.prompt = prompt

    def parts(self, record: Record, key: int) -> list[Part]:
        return [*self.prompt_parts(record), Text(drawn_caption(record, key))]

    def prompt_parts(self, record: Record) -> list[Part]:
        prompt: list[Part] = [Text(self.prompt, supervised=False)] if self.prompt else []
        return [Visual(), *prompt]
