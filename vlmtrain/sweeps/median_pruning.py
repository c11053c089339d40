"""Stops a trial that does worse than half of the others did (Golovin et al. 2017, KDD: the median rule)."""

from collections.abc import Sequence

from vlmtrain.launch.sweep_folder import RUNNING
from vlmtrain.sweeps.history import Record
from vlmtrain.sweeps.optuna_study import load_optuna, make_study, make_trial


class MedianPruning:
    """Hopeless is a trial whose best value so far is worse than the median of what finished ones had at its step.

    The first `num_finished` trials go to their end in any case, and each trial trains at least `first_steps`.
    """

    def __init__(self, num_finished: int = 3, first_steps: int = 0) -> None:
        if num_finished < 1:
            raise ValueError(f"num_finished={num_finished}: with nothing to compare, nothing is hopeless; at least 1.")
        self.num_finished = num_finished
        self.first_steps = first_steps

    def is_hopeless(self, number: int, history: Sequence[Record], best: str) -> bool:
        """Whether trial `number` should be stopped now."""
        pruner = load_optuna().pruners.MedianPruner(self.num_finished, self.first_steps)
        mine = next((record for record in history if record.number == number), None)
        if mine is None or not mine.curve:
            return False
        others = [Record(record.number, record.state, {}, record.curve) for record in history if record is not mine]
        study = make_study(others, best, {})
        return bool(pruner.prune(study, make_trial(Record(number, RUNNING, {}, mine.curve), {})))
