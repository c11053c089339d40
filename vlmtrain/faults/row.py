"""A row of the fault matrix: what is done to a run, how often, and what has to come of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from vlmtrain.faults.bench import Bench


@dataclass(frozen=True)
class Case:
    """One try.  `attempt` raises where something else comes of it than the row says."""

    name: str
    attempt: Callable[[], None]


@dataclass(frozen=True)
class Row:
    """`id`, `weight` and `promise` are those of the matrix; `cases` draws its random moments from the bench.

    `in_smoke`: is it part of the tier that every push can afford?
    """

    id: str
    weight: int
    fault: str
    promise: str
    cases: Callable[[Bench], list[Case]]
    in_smoke: bool = True


@dataclass
class Outcome:
    """What came of a row."""

    row: Row
    passed: int = 0
    total: int = 0
    seconds: float = 0.0
    loud: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """PASS; SILENT where a wrong result went unnoticed; LOUD where every failure explained itself; else FLAKY or
        FAIL, which differ in whether any try went well."""
        if self.passed == self.total:
            return "PASS"
        if self.silent:
            return "SILENT"
        if not self.failed:
            return "LOUD"
        return "FLAKY" if self.passed else "FAIL"

    @property
    def points(self) -> float:
        return {"PASS": 1.0, "LOUD": 0.5}.get(self.verdict, 0.0)

    def line(self) -> str:
        return f"{self.row.id} {self.verdict} {self.passed}/{self.total} ({self.seconds:.0f} s)"


def score(outcomes: list[Outcome]) -> str:
    """The last line: points by weight, and how many rows failed in which way."""
    weight = sum(outcome.row.weight for outcome in outcomes)
    points = sum(outcome.row.weight * outcome.points for outcome in outcomes)
    verdicts = [outcome.verdict for outcome in outcomes]
    counts = " · ".join(f"{name.lower()} {verdicts.count(name)}" for name in ("SILENT", "LOUD", "FLAKY", "FAIL"))
    seconds = sum(outcome.seconds for outcome in outcomes)
    return f"score {100 * points / max(weight, 1):.0f}/100 · {counts} · {seconds / 60:.1f} min"
