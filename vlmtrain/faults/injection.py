"""Makes a training go wrong at a chosen step of a chosen rank.

Only processes that the harness starts ask for it (warm.py), and only where VLMTRAIN_TESTING=1; the training itself
holds no trace of it.  VLMTRAIN_FAULT names a function of places.py (where) and one of deeds.py (what).
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from vlmtrain.faults import deeds, places
from vlmtrain.training.signals import Signals
from vlmtrain.training.trainer import Trainer

VARIABLE, PERMISSION = "VLMTRAIN_FAULT", "VLMTRAIN_TESTING"


@dataclass(frozen=True)
class Injection:
    """`deed` is done at `place` on `rank` in the steps `first` to `last`; `value` is the deed's own."""

    place: str
    deed: str
    first: int
    last: int
    rank: int = 1
    value: float = 0.0

    def environment(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(asdict(self)), PERMISSION: "1"}


def arm() -> None:
    """From now on every training of this process meets the fault that the environment asks for."""
    if os.environ.get(PERMISSION) != "1" or VARIABLE not in os.environ:
        return
    injection = Injection(**json.loads(os.environ[VARIABLE]))
    train = Trainer.train

    def train_with_fault(trainer: Trainer, signals: Signals) -> None:
        if int(os.environ.get("RANK", "0")) == injection.rank:
            getattr(places, injection.place)(trainer, _timed(injection, trainer))
        train(trainer, signals)

    Trainer.train = train_with_fault  # type: ignore[method-assign, assignment]


def _timed(injection: Injection, trainer: Trainer) -> Callable[[Any], Any]:
    """What a place calls; gives back what it was given, or what the deed made of it."""
    deed = getattr(deeds, injection.deed)
    struck: set[int] = set()  # a step that is taken again after a rollback is left alone

    def strike(what: Any) -> Any:
        step = trainer.progress.step
        if injection.first <= step <= injection.last and step not in struck:
            struck.add(step)
            return deed(trainer, injection.value, what)
        return what

    return strike
