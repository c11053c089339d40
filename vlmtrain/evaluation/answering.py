"""Asks questions about held-out images, compares the answers, and checks that the model looked at the image."""

import logging
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from vlmtrain.evaluation.base import RecordLike, SampleOutcome, pick_sources
from vlmtrain.evaluation.judged_texts import JudgedTexts
from vlmtrain.evaluation.writing import Writing, Written, outcome_of

logger = logging.getLogger(__name__)

_MARK = re.compile(r"[^\w\s]")
_MOST_LOOKED_AT = 8
_ARTICLES = frozenset({"a", "an", "the"})


class Answering(JudgedTexts):
    """Greedy answers to the first question of every record of `splits` (None: all that the data has).

    A record's questions are `extra["questions"]`, each with `text`, `answer` (or `answers`, all of which are right) and
    perhaps a `kind`; a form's prompt asks the first.  To ask several, let the data give the record once for each
    (vlmtrain.data.asking.OneByOne).  Right is the same text after `normalize_answer`.  Metrics per split: `accuracy`,
    and per kind `<kind>/accuracy`, with two yardsticks of the same shape:

    - `control_*`: each record's images are replaced by another's of its batch, the question stays.
    - `majority_*`: what always giving the commonest answer of the question's kind would get, counted in the split
      itself: a model that never looks and knows the kinds gets no more.

    `answers` names right answers that get shares of their own, `<answer>/accuracy`: how many of the questions with that
    answer are answered right.  A model that always says "left" has 1 there and 0 at "right".
    """

    nothing = "The split %r holds no records to ask about."

    def __init__(
        self,
        splits: list[str] | None = None,
        limit: int | None = None,
        max_new_tokens: int = 12,
        control: bool = True,
        num_samples: int = 12,
        answers: Sequence[str] = (),
    ) -> None:
        super().__init__(Writing(judge_answer, limit, max_new_tokens, control), splits, num_samples)
        self.answers = tuple(answers)

    def check(self, model: nn.Module, sources: Mapping[str, Any]) -> None:
        self.check_model(model)
        for split, source in pick_sources(sources, self.splits).items():
            record = _first_readable(source)
            if record is not None and not right_answers(record):
                raise ValueError(
                    f"Answering needs records with questions and answers, and {record.key!r} of split {split!r} has "
                    "none. Choose data with questions (data=scene_questions), or evaluate captions instead."
                )

    def show(self, written: Written, split: str) -> SampleOutcome:
        return outcome_of("answering", split, written, right_answers(written.record), question_of(written.record))

    def figures(self, written: list[Written]) -> dict[str, float]:
        """All figures of a split, first over all kinds and then per kind."""
        if self.writing.control and all(each.control_verdict is None for each in written):
            logger.warning("No control was possible: it needs batches of two or more records of different images.")
        by_kind: dict[str, list[Written]] = defaultdict(list)
        for each in written:
            by_kind[str(asked(each.record).get("kind", ""))].append(each)
        metrics = _shares(written)
        metrics["majority_accuracy"] = sum(map(_count_commonest, by_kind.values())) / len(written)
        for kind, members in sorted(by_kind.items()):
            if kind:
                shares = _shares(members) | {"majority_accuracy": _count_commonest(members) / len(members)}
                metrics |= {f"{kind}/{name}": value for name, value in shares.items()}
        for answer in self.answers:
            members = [each for each in written if judge_answer(answer, each.record).correct]
            metrics |= {f"{answer}/{name}": value for name, value in _shares(members).items()} if members else {}
        return metrics | {"num_questions": float(len(written))}


@dataclass(frozen=True)
class AnswerVerdict:
    """Right or wrong, nothing in between."""

    correct: bool
    reason: str = ""
    aspects: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    groups: Sequence[str] = ()


def judge_answer(text: str, record: RecordLike, /) -> AnswerVerdict:
    """Whether `text` is one of the right answers to the record's first question."""
    wanted = right_answers(record)
    is_right = normalize_answer(text) in {normalize_answer(answer) for answer in wanted}
    return AnswerVerdict(is_right, "" if is_right else "another answer")


def asked(record: RecordLike) -> Mapping[str, Any]:
    """The question that a prompt of this record asks; empty where it has none."""
    questions = record.extra.get("questions") or [{}]
    first: Mapping[str, Any] = questions[0]
    return first


def question_of(record: RecordLike) -> str:
    """The words of that question."""
    return str(asked(record)["text"])


def right_answers(record: RecordLike) -> list[str]:
    """All texts that answer the record's first question."""
    question = asked(record)
    return list(question.get("answers") or ([question["answer"]] if question.get("answer") else []))


def normalize_answer(text: str) -> str:
    """Lower case, no punctuation, no articles, single blanks, as SQuAD compares answers (Rajpurkar et al. 2016)."""
    words = _MARK.sub(" ", unicodedata.normalize("NFKC", text).casefold()).split()
    return " ".join(word for word in words if word not in _ARTICLES) or " ".join(words)


def _shares(written: list[Written]) -> dict[str, float]:
    shares = {"accuracy": sum(bool(each.verdict.correct) for each in written) / len(written)}
    swapped = [each.control_verdict for each in written if each.control_verdict is not None]
    if swapped:
        shares["control_accuracy"] = sum(bool(verdict.correct) for verdict in swapped) / len(swapped)
    return shares


def _count_commonest(written: list[Written]) -> int:
    """How many of these the commonest answer among them is right for."""
    answers = Counter(answer for each in written for answer in {*map(normalize_answer, right_answers(each.record))})
    return max(answers.values(), default=0)


def _first_readable(source: Any) -> RecordLike | None:
    """A record to look at before training; a broken one, or storage that fails, is told when it is needed."""
    for index in range(min(len(source), _MOST_LOOKED_AT)):
        try:
            record: RecordLike = source.read(index)
        except (ValueError, OSError) as error:
            logger.debug("not looked at: %s", error)
            continue
        return record
    return None
