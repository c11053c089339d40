from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.evaluation.word_overlap import WordOverlap, word_f1


@dataclass
class Record:
    captions: list[str]


words = st.lists(st.sampled_from(["a", "dog", "red", "Übung", "two"]), max_size=8)


@given(words, words)
def test_f1_is_symmetric_bounded_and_agrees_with_its_definition(ours, theirs):
    text, reference = " ".join(ours), ", ".join(theirs).upper()
    score = word_f1(text, reference)
    assert score == word_f1(reference, text)
    assert 0.0 <= score <= 1.0
    if ours and sorted(ours) == sorted(theirs):
        assert score == 1.0
    shared = sum((Counter(w.casefold() for w in ours) & Counter(w.casefold() for w in theirs)).values())
    if shared:
        precision, recall = shared / len(ours), shared / len(theirs)
        assert score == pytest.approx(2 * precision * recall / (precision + recall))
    else:
        assert score == 0.0


def test_the_best_caption_counts_and_none_gives_nothing():
    judge = WordOverlap()
    assert judge("a red dog", Record(["two cats", "A red dog!"])).aspects["word_f1"] == (1.0, 1.0)
    assert judge("a red dog", Record([])).aspects["word_f1"] == (0.0, 1.0)
    assert judge("a", Record(["b"])).correct is None
