"""The tree-structured Parzen estimator (Bergstra et al. 2011, NeurIPS), as Optuna has it."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from vlmtrain.data.keys import key_of
from vlmtrain.sweeps.history import Record
from vlmtrain.sweeps.optuna_study import load_optuna, make_distributions, make_study
from vlmtrain.sweeps.plans import Space


class TreeParzen:
    """Draws `num_random` trials evenly, and then where good trials are more likely than bad ones.

    Trials that still run count as bad ones, so that several at a time do not try the same.
    """

    def __init__(self, num_trials: int, num_random: int = 5, seed: int = 0) -> None:
        if num_trials < 1 or num_random < 1:
            raise ValueError(f"num_trials={num_trials}, num_random={num_random}: both are at least 1.")
        self.num_trials = num_trials
        self.num_random = num_random
        self.seed = seed

    def suggest(self, number: int, space: Space, history: Sequence[Record], best: str) -> Mapping[str, Any]:
        """Values for trial `number`; the same history gives the same values."""
        optuna = load_optuna()
        # the study is made anew each time; neighbouring seeds would begin with numbers that are close together
        draw = key_of("sweep", self.seed, number) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # constant_liar, since 2021
            sampler = optuna.samplers.TPESampler(n_startup_trials=self.num_random, constant_liar=True, seed=draw)
        study = make_study([record for record in history if record.number < number], best, space, sampler)
        suggested: Mapping[str, Any] = study.ask(dict(make_distributions(space))).params
        return suggested
