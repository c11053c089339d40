"""Conversations of several turns about images."""

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text, Visual

_MARK = "<image>"


class Conversation:
    """`system`, and then turn by turn a message as prompt, with the images where it has <image>, and its answer.

    Only answers are learned; where one ends is for the layout to say.  The defaults are Vicuna's words, as LLaVA-1.5
    uses them (Liu et al. 2023, arXiv:2310.03744), less the system's; `{message}` in `template` is the message.  A
    prompt is the first message.
    """

    def __init__(self, template: str = "USER: {message} ASSISTANT:", system: str = "") -> None:
        if "{message}" not in template or _MARK in template + system:
            raise ValueError(
                f"template={template!r} must say where the {{message}} stands; {_MARK} is for messages alone"
            )
        self.template = template
        self.system = system

    def parts(self, record: Record, key: int) -> list[Part]:
        turns = _turns(record)
        parts: list[Part] = []
        for message, answer in zip(turns[::2], turns[1::2], strict=True):
            parts += self._message(message, parts)
            if answer.strip():
                parts.append(Text(f" {answer.strip()}"))
        if not any(isinstance(part, Text) and part.supervised for part in parts):
            raise BrokenSample(record.key, "all answers are empty")
        return parts

    def prompt_parts(self, record: Record) -> list[Part]:
        return self._message(_turns(record)[0], [])

    def _message(self, message: str, before: list[Part]) -> list[Part]:
        """The images count on from those of the turns `before`."""
        image = sum(isinstance(part, Visual) for part in before)
        text = self.template.replace("{message}", message.strip())
        pieces = (text if before or not self.system else f"{self.system} {text}").split(_MARK)
        parts: list[Part] = []
        for number, piece in enumerate(pieces):
            if number:
                parts.append(Visual(images=(image + number - 1,)))
            if piece:
                parts.append(Text(piece, supervised=False))
        return parts


def _turns(record: Record) -> list[str]:
    """Message, answer, message, answer; BrokenSample where they do not fit the images."""
    turns = record.extra.get("turns")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise BrokenSample(record.key, 'it has no "turns" of messages, each with its answer')
    marks = sum(turn.count(_MARK) for turn in turns[::2])
    if marks != len(record.images):
        raise BrokenSample(record.key, f"its messages hold {marks} {_MARK} and it has {len(record.images)} images")
    return turns
