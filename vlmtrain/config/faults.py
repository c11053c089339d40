"""What is wrong with a configuration, and what to type instead."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One thing wrong: where it stands, what is wrong with it and what would be right."""

    path: str
    problem: str
    remedy: str = ""
    place: str = ""  # file and line that say so; empty when it was typed on the command line

    def __str__(self) -> str:
        sentence = f"{self.path}: {self.problem}" if self.path else self.problem
        if self.place:
            sentence += f" ({self.place})"
        return f"{sentence}; {self.remedy}" if self.remedy else sentence


class ConfigError(ValueError):
    """Every fault of a configuration at once."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__("\n".join(str(fault) for fault in faults))


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant.  A word that contains the other counts as close."""
    words = sorted(set(known))
    near = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    if near:
        return near[0]
    inside = [candidate for candidate in words if len(word) >= 3 and (word in candidate or candidate in word)]
    return min(inside, key=len) if inside else None


def offer(word: str, known: Iterable[str], noun: str = "") -> str:
    """'did you mean X?' and the list to choose from."""
    words = list(dict.fromkeys(known))
    near = closest(word, words)
    meant = f"did you mean {near}? " if near else ""
    shown = ", ".join(words[:24]) + (", ..." if len(words) > 24 else "")
    return f"{meant}{noun or 'Known here'}: {shown}" if words else meant.strip()
