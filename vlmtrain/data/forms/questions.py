"""Questions about an image, each with its answer."""

from typing import Any

from vlmtrain.data.forms.visuals import check_max_frames, visuals_of
from vlmtrain.data.keys import key_of
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text


class Questions:
    """The images, then questions as prompts, each followed by its answer; only answers are learned.

    In training `max_turns` of the record's questions are asked in an order of chance; in evaluation the first one.
    `template` is the prompt, for example "Question: {question} Answer:", as BLIP-2 asks (Li et al. 2023, section 4.1).
    With `max_frames` above 1 the record's images are the frames of one video.
    """

    def __init__(self, template: str = "{question}", max_turns: int = 1, max_frames: int = 1) -> None:
        if "{question}" not in template or max_turns < 1:
            raise ValueError(
                f"template={template!r} must say where the {{question}} stands, and max_turns={max_turns} be 1 or more"
            )
        self.template = template
        self.max_turns = max_turns
        self.max_frames = check_max_frames(max_frames)

    def parts(self, record: Record, key: int) -> list[Part]:
        questions = _questions(record)
        order = sorted(range(len(questions)), key=lambda place: key_of("turn", key, place))
        parts = visuals_of(record, self.max_frames)
        for place in order[: self.max_turns]:
            parts += [self._prompt(questions[place]), Text(f" {str(questions[place]['answer']).strip()}")]
        return parts

    def prompt_parts(self, record: Record) -> list[Part]:
        questions = record.extra.get("questions")
        if not questions or not questions[0].get("text"):
            raise BrokenSample(record.key, "it has no question to ask")
        return [*visuals_of(record, self.max_frames), self._prompt(questions[0])]

    def _prompt(self, question: dict[str, Any]) -> Text:
        return Text(self.template.replace("{question}", str(question["text"]).strip()), supervised=False)


def _questions(record: Record) -> list[dict[str, Any]]:
    """Those with text and answer."""
    questions = record.extra.get("questions")
    asked = [each for each in questions or [] if isinstance(each, dict) and each.get("text") and each.get("answer")]
    if not asked:
        raise BrokenSample(record.key, 'it has no "questions" with "text" and "answer"')
    return asked
