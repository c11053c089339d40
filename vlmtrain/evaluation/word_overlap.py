"""A judge for data without scenes: how many words of the best reference a text shares."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vlmtrain.evaluation.base import RecordLike

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """Token F1; it never claims to know whether a caption is right."""

    reason: str
    aspects: Mapping[str, tuple[float, float]]
    correct: bool | None = None
    groups: Sequence[str] = field(default_factory=tuple)


class WordOverlap:
    """Judges by F1 over words (lower case, punctuation ignored), taking the best of the record's captions.

    The measure of SQuAD (Rajpurkar et al. 2016, section 4), except that articles count.  It rewards right words, not
    right claims: read it next to its control and its chance.
    """

    def __call__(self, text: str, record: RecordLike, /) -> Overlap:
        score = max((word_f1(text, reference) for reference in record.captions), default=0.0)
        return Overlap(f"shares {score:.0%} of the words", {"word_f1": (score, 1.0)})


def word_f1(text: str, reference: str) -> float:
    """Harmonic mean of the shares of words of each that the other has too, between 0 and 1."""
    ours, theirs = _words(text), _words(reference)
    shared = (ours & theirs).total()
    if not shared:
        return 0.0
    return 2 * shared / (ours.total() + theirs.total())


def _words(text: str) -> Counter[str]:
    return Counter(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))
