"""Which trials a sweep has: all known beforehand, or proposed one after the other by what the earlier ones showed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from vlmtrain.config.build import build
from vlmtrain.config.sweep import Sweep
from vlmtrain.config.sweep_values import SEPARATOR, Range, name_value
from vlmtrain.sweeps.history import Record, best_is

Space = Mapping[str, list[str] | Range]


@dataclass(frozen=True)
class Chosen:
    """A trial to be: what it is called and what is typed for it."""

    name: str
    overrides: list[str]
    values: Mapping[str, Any] = field(default_factory=dict)


class Search(Protocol):
    """Proposes values; `search` of a sweep names one.  What it proposes depends on its arguments alone."""

    num_trials: int

    def suggest(self, number: int, space: Space, history: Sequence[Record], best: str) -> Mapping[str, Any]: ...


class Pruner(Protocol):
    """Says which trial is not worth going on with; `prune` of a sweep names one."""

    def is_hopeless(self, number: int, history: Sequence[Record], best: str) -> bool: ...


class Plan(Protocol):
    """The trials of a sweep, by number."""

    num_trials: int

    def choose(self, number: int, history: Sequence[Record], proposed: Mapping[str, Any]) -> Chosen:
        """Trial `number`; `proposed`: the values that a search gave it when it began, empty where it has not."""


class Listed:
    """All settings are known."""

    def __init__(self, settings: Mapping[str, list[str]]) -> None:
        self.num_trials = len(settings)
        self._chosen = [Chosen(name, overrides) for name, overrides in settings.items()]

    def choose(self, number: int, history: Sequence[Record], proposed: Mapping[str, Any]) -> Chosen:
        return self._chosen[number]


class Searched:
    """A search proposes each when its turn comes."""

    def __init__(self, sweep: Sweep, search: Search) -> None:
        assert sweep.metric is not None
        self.num_trials = search.num_trials
        self._sweep, self._search = sweep, search
        self._best = best_is(sweep.metric, sweep.direction)

    def choose(self, number: int, history: Sequence[Record], proposed: Mapping[str, Any]) -> Chosen:
        values = proposed or self._search.suggest(number, self._sweep.space, history, self._best)
        short = [name_value(key, _shorten(value), False) for key, value in values.items()]
        overrides = [*self._sweep.common, *(f"{key}={value}" for key, value in values.items())]
        return Chosen(SEPARATOR.join([f"{number:02d}", *short]), overrides, values)


def make_plan(sweep: Sweep) -> Plan:
    """The plan of a sweep whose steps are settled."""
    if sweep.search is None:
        return Listed(sweep.settings)
    return Searched(sweep, build(sweep.search))


def _shorten(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
