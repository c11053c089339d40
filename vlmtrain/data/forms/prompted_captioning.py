"""Pairs of an image and captions, asked for in one of several wordings."""

from vlmtrain.data.forms.drawn_caption import drawn_caption
from vlmtrain.data.keys import key_of
from vlmtrain.data.record import Record
from vlmtrain.layout import Part, Text, Visual

_MARK = "<image>"


class PromptedCaptioning:
    """One of `prompts`, with the image where it has <image>, and one of the captions to be written.

    In training both are drawn by chance, apart from each other; in evaluation the first prompt asks.  A caption that
    follows the words of a prompt has a blank in front.  MiniGPT-4's second stage (Zhu et al. 2023, section 3.3) asks
    like this, between the marks of a conversation, and InstructBLIP for captions (Dai et al. 2023, section 2.2).
    """

    def __init__(self, prompts: list[str]) -> None:
        wrong = [prompt for prompt in prompts if prompt.count(_MARK) != 1]
        if not prompts or wrong:
            raise ValueError(f"prompts={wrong or prompts}: give one or more, each with one {_MARK} where the image is")
        self.prompts = prompts

    def parts(self, record: Record, key: int) -> list[Part]:
        caption = drawn_caption(record, key)
        prompt = _around_image(self.prompts[key_of("prompt", key) % len(self.prompts)])
        blank = " " if isinstance(prompt[-1], Text) else ""
        return [*prompt, Text(blank + caption)]

    def prompt_parts(self, record: Record) -> list[Part]:
        return _around_image(self.prompts[0])


def _around_image(prompt: str) -> list[Part]:
    before, after = prompt.split(_MARK)
    parts: list[Part] = [Text(before, supervised=False)] if before else []
    return [*parts, Visual(), *([Text(after, supervised=False)] if after else [])]
