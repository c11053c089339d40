"""Images without captions, each a word of a prompt."""

from vlmtrain.data.record import Record
from vlmtrain.layout import Part
from vlmtrain.layouts.pseudo_words import parts_of_prompt


class ImageInPrompt:
    """The same prompt for every image, which stands at its *; captions are not read.

    Pic2Word trains on "a photo of *" (Saito et al. 2023, arXiv:2302.03084, section 3.2).
    """

    def __init__(self, prompt: str = "a photo of *") -> None:
        self.prompt = parts_of_prompt(prompt)

    def parts(self, record: Record, key: int) -> list[Part]:
        return list(self.prompt)

    def prompt_parts(self, record: Record) -> list[Part]:
        return list(self.prompt)
