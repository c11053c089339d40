"""Optuna behind the sweep: what it is told of the trials, what it proposes, and which trial it gives up."""

import math

import pytest

from vlmtrain.config.sweep import HIGHEST, LOWEST
from vlmtrain.config.sweep_values import Range
from vlmtrain.sweeps.history import Record
from vlmtrain.sweeps.median_pruning import MedianPruning
from vlmtrain.sweeps.optuna_study import make_study
from vlmtrain.sweeps.tree_parzen import TreeParzen

SPACE = {"optimizer.lr": Range(1e-5, 1e-1, True), "model/connector": ["mlp", "linear"]}


def judge(lr: float) -> float:
    """Best at 1e-3."""
    return (math.log10(lr) + 3) ** 2


def trial(number: int, lr: float, state: str = "done") -> Record:
    return Record(number, state, {"optimizer.lr": lr, "model/connector": "mlp"}, {10: judge(lr) + 1, 20: judge(lr)})


def test_the_study_knows_every_trial_for_what_it_is() -> None:
    history = [trial(0, 1e-3), trial(2, 1e-2, "pruned"), trial(3, 1e-4, "failed"), trial(4, 1e-1, "running")]
    history.append(Record(5, "done", {"optimizer.lr": 1e-5, "model/connector": "mlp"}, {10: math.nan}))
    study = make_study(history, LOWEST, SPACE)
    assert [each.state.name for each in study.trials] == ["COMPLETE", "RUNNING", "PRUNED", "FAIL", "RUNNING", "FAIL"]
    assert study.best_value == judge(1e-3) and study.trials[2].intermediate_values == {10: 2.0, 20: 1.0}


def test_the_same_history_gives_the_same_proposal() -> None:
    search = TreeParzen(20, num_random=3)
    history = [trial(number, lr) for number, lr in enumerate([1e-5, 1e-3, 1e-1, 1e-2])]
    first = search.suggest(4, SPACE, history, LOWEST)
    assert first == search.suggest(4, SPACE, history, LOWEST) and set(first) == set(SPACE)
    assert first != search.suggest(4, SPACE, history, HIGHEST), "it matters what is good"
    assert first == search.suggest(4, SPACE, [*history, trial(5, 1e-4)], LOWEST), "later trials do not count"
    assert search.suggest(0, SPACE, [], LOWEST) != search.suggest(1, SPACE, [trial(0, 1e-3, "running")], LOWEST)


@pytest.mark.parametrize("seed", [0, 100])
def test_it_comes_to_the_good_end_of_the_space(seed: int) -> None:
    search, history = TreeParzen(24, num_random=5, seed=seed), list[Record]()
    for number in range(search.num_trials):
        history.append(trial(number, search.suggest(number, SPACE, history, LOWEST)["optimizer.lr"]))
    late = sorted(judge(record.values["optimizer.lr"]) for record in history[12:])
    assert late[len(late) // 2] < 0.6, "drawn evenly the median would be 1"
    assert late[0] < 0.05


def test_whole_numbers_stay_whole() -> None:
    values = TreeParzen(1).suggest(0, {"steps": Range(10, 50, False, 10), "width": Range(1.5, 2.5)}, [], LOWEST)
    assert values["steps"] in (10, 20, 30, 40, 50) and isinstance(values["steps"], int)
    assert 1.5 <= values["width"] <= 2.5


CURVES = {0: [5.0, 3.0, 1.0], 1: [5.0, 4.0, 2.0], 2: [6.0, 5.0, 3.0]}


def history_with(own: list[float]) -> list[Record]:
    others = {number: dict(zip((10, 20, 30), curve, strict=True)) for number, curve in CURVES.items()}
    mine = dict(zip((10, 20, 30), own, strict=False))
    return [*(Record(number, "done", {}, curve) for number, curve in others.items()), Record(3, "running", {}, mine)]


@pytest.mark.parametrize(
    ("own", "best", "hopeless"),
    [
        ([5.5, 4.5], LOWEST, True),  # the median at step 20 is 4
        ([5.5, 3.9], LOWEST, False),
        ([3.0, 9.0], LOWEST, False),  # its best so far counts
        ([3.0, 3.5], HIGHEST, True),
        ([], LOWEST, False),
    ],
)
def test_worse_than_the_median_at_this_step_is_hopeless(own: list[float], best: str, hopeless: bool) -> None:
    assert MedianPruning(num_finished=3).is_hopeless(3, history_with(own), best) == hopeless


def test_the_first_trials_and_the_first_steps_are_spared() -> None:
    bad = history_with([9.0, 9.0])
    assert not MedianPruning(num_finished=4).is_hopeless(3, bad, LOWEST)
    assert not MedianPruning(num_finished=3, first_steps=21).is_hopeless(3, bad, LOWEST)
    assert MedianPruning(num_finished=3, first_steps=20).is_hopeless(3, bad, LOWEST)


@pytest.mark.parametrize("wrong", [lambda: TreeParzen(0), lambda: TreeParzen(3, 0), lambda: MedianPruning(0)])
def test_counts_below_one_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        wrong()  # type: ignore[operator]
