"""A text is read, questions follow, and only the answers are learned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.data.forms.read_questions import ReadQuestions
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Text

ASKED = [{"text": f"what {number}?", "answer": f"answer {number}"} for number in range(3)]


@given(st.integers(1, 5), st.integers(0, 2**60))
def test_a_text_then_turns_of_which_only_answers_are_learned(max_turns: int, key: int) -> None:
    texts = [" one", " other "]
    parts = ReadQuestions("</s>", max_turns=max_turns).parts(Record("r", [], texts, {"questions": ASKED}), key)
    assert parts[0] in (Text(" one</s>", False), Text(" other</s>", False))
    turns = [(part.string, part.supervised) for part in parts[1:] if isinstance(part, Text)]
    assert len(turns) == 2 * min(max_turns, 3)
    for (question, learned), (answer, too) in zip(turns[::2], turns[1::2], strict=True):
        assert not learned and too and answer == f" answer {question[5]}"


def test_a_prompt_ends_with_the_first_question() -> None:
    form = ReadQuestions("|", "Q: {question} A:")
    assert form.prompt_parts(Record("r", [], ["text"], {"questions": ASKED})) == [
        Text("text|", False),
        Text("Q: what 0? A:", False),
    ]


@pytest.mark.parametrize(("texts", "asked", "missing"), [([" "], ASKED, "no text"), (["text"], [], "questions")])
def test_without_text_or_questions_a_record_is_broken(texts: list[str], asked: list[object], missing: str) -> None:
    with pytest.raises(BrokenSample, match=missing):
        ReadQuestions().parts(Record("r", [], texts, {"questions": asked}), 0)
