"""Questions become prompts, answers what is learned."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.data.forms.questions import Questions
from vlmtrain.data.forms.visuals import video_of
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Text, Visual

ASKED = [{"text": f"what {number}?", "answer": f"answer {number}", "kind": "k"} for number in range(4)]


def record(images: int = 1, questions: object = ASKED) -> Record:
    return Record("r", [b"x"] * images, ["a caption"], {"questions": questions})


@given(st.integers(1, 6), st.integers(0, 2**60), st.integers(0, 3))
def test_every_turn_is_a_question_with_its_own_answer(max_turns: int, key: int, images: int) -> None:
    parts = Questions(max_turns=max_turns).parts(record(images), key)
    assert parts[:images] == [Visual(images=(image,)) for image in range(images)]
    turns = parts[images:]
    asked = [part.string for part in turns[::2]]
    assert len(asked) == min(max_turns, 4) == len(set(asked))
    assert all(isinstance(part, Text) and part.supervised == bool(place % 2) for place, part in enumerate(turns))
    assert [part.string for part in turns[1::2]] == [f" answer {text[5]}" for text in asked]


def test_every_question_gets_its_turn_and_the_prompt_asks_the_first() -> None:
    form = Questions("Question: {question} Answer:")
    first = {form.parts(record(), key)[1] for key in range(40)}
    assert first == {Text(f"Question: what {number}? Answer:", False) for number in range(4)}
    assert form.prompt_parts(record()) == [Visual(), Text("Question: what 0? Answer:", False)]


@pytest.mark.parametrize("questions", [None, [], [{"text": "what?"}], [{"answer": "red"}], ["what?"]])
def test_a_record_without_question_and_answer_is_broken(questions: object) -> None:
    with pytest.raises(BrokenSample, match=r"'r'.*questions"):
        Questions().parts(record(questions=questions), 0)


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match=r"template='what\?'"):
        Questions("what?")
    with pytest.raises(ValueError, match="max_turns=0"):
        Questions(max_turns=0)
    with pytest.raises(ValueError, match="max_frames=0"):
        Questions(max_frames=0)
    with pytest.raises(BrokenSample, match="no frame"):
        Questions(max_frames=4).parts(record(images=0), 0)


@given(st.integers(1, 300), st.integers(1, 40))
def test_frames_are_spread_evenly_in_their_order(count: int, most: int) -> None:
    chosen = video_of(record(count), most).images
    assert len(chosen) == min(count, most) and list(chosen) == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < count
    gaps = [after - before for before, after in pairwise(chosen)]
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
    assert abs(chosen[0] - (count - 1 - chosen[-1])) <= 1, "as much is left out before as after"
