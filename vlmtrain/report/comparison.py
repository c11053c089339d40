"""What a comparison of runs holds; how it is drawn stands beside it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

Curve = Sequence[tuple[int, float]]  # (step, value)


@dataclass(frozen=True)
class Spread:
    """One figure over the seeds of an entry."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample's standard deviation; None of a single value."""
        if len(self.values) < 2:
            return None
        return stdev(self.values) if all(math.isfinite(value) for value in self.values) else math.nan


@dataclass(frozen=True)
class Entry:
    """One run, or runs that differ in their seed alone."""

    name: str
    settings: Mapping[str, Any]  # of the keys that differ between entries
    states: Sequence[str]  # one per run
    seeds: Sequence[int]
    metrics: Mapping[str, Spread]  # <stage>/<metric> -> its value at the end
    curves: Mapping[str, Sequence[Curve]]  # <stage>/<metric> -> one curve per run
    folders: Sequence[str] = ()
    reason: str = ""

    @property
    def is_done(self) -> bool:
        return all(state == "done" for state in self.states)

    @property
    def state(self) -> str:
        return ", ".join(dict.fromkeys(self.states))


@dataclass(frozen=True)
class Comparison:
    """Entries, best first where `by` says what is best."""

    entries: Sequence[Entry]
    keys: Sequence[str]  # of the configuration, that differ
    headline: Sequence[str]  # metrics that a table begins with
    by: str | None = None
    best: str = "highest"

    @property
    def metrics(self) -> list[str]:
        """All there are, headlines first."""
        return list(dict.fromkeys([*self.headline, *(name for entry in self.entries for name in entry.metrics)]))

    @property
    def curves(self) -> list[str]:
        """What a chart can show: curves of two points and more that are not all one value.  Headlines first, losses
        next."""
        names = dict.fromkeys(name for entry in self.entries for name in entry.curves)
        moving = [name for name in names if self._moves(name)]
        return sorted(moving, key=lambda name: (name not in self.headline, not name.endswith("/loss")))

    def _moves(self, name: str) -> bool:
        curves = [curve for entry in self.entries for curve in entry.curves.get(name, ())]
        return any(len(curve) > 1 for curve in curves) and len({value for curve in curves for _, value in curve}) > 1
