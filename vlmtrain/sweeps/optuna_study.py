"""The trials of a sweep as an Optuna study.  It is made anew for each question: the run folders are the only truth."""

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from vlmtrain.config.sweep import LOWEST
from vlmtrain.config.sweep_values import Range
from vlmtrain.launch.sweep_folder import DONE, PRUNED, RUNNING
from vlmtrain.sweeps.history import Record
from vlmtrain.sweeps.plans import Space

DIRECTIONS = {True: "minimize", False: "maximize"}


def load_optuna() -> ModuleType:
    """Optuna, silent.  ValueError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError("searching and pruning need Optuna: pip install 'vlmtrain[sweep]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def make_study(history: Sequence[Record], best: str, space: Space, sampler: Any = None) -> Any:
    """A study in memory that knows `history`, numbers and all (trials without a record count as running)."""
    optuna = load_optuna()
    study = optuna.create_study(direction=DIRECTIONS[best == LOWEST], sampler=sampler)
    known = {record.number: record for record in history}
    for number in range(max(known, default=-1) + 1):
        study.add_trial(make_trial(known.get(number) or Record(number, RUNNING), space))
    return study


def make_trial(record: Record, space: Space) -> Any:
    """One record as Optuna holds it.  A trial that failed, or ended with a number that is none, teaches nothing."""
    optuna = load_optuna()
    states = {DONE: "COMPLETE", PRUNED: "PRUNED", RUNNING: "RUNNING"}
    state = optuna.trial.TrialState[states.get(record.state, "FAIL")]
    curve = {step: value for step, value in record.curve.items() if not math.isnan(value)}
    value = record.last if state == optuna.trial.TrialState.COMPLETE else None
    if state == optuna.trial.TrialState.COMPLETE and (value is None or not math.isfinite(value)):
        state, value = optuna.trial.TrialState.FAIL, None
    values = {key: value for key, value in record.values.items() if key in space}
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=values,
        distributions={key: spell for key, spell in make_distributions(space).items() if key in values},
        intermediate_values=curve,
    )


def make_distributions(space: Space) -> Mapping[str, Any]:
    """What each key may be, in Optuna's words."""
    optuna = load_optuna()
    made: dict[str, Any] = {}
    for key, values in space.items():
        if not isinstance(values, Range):
            made[key] = optuna.distributions.CategoricalDistribution(values)
        elif isinstance(values.low, int) and isinstance(values.high, int):
            made[key] = optuna.distributions.IntDistribution(values.low, values.high, values.log, int(values.step or 1))
        else:
            made[key] = optuna.distributions.FloatDistribution(values.low, values.high, values.log, values.step)
    return made
