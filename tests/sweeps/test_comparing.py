"""What differs between runs, what belongs together, and which is best."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vlmtrain.launch.sweep_folder import SweepFolder
from vlmtrain.main import main
from vlmtrain.sweeps.comparing import compare_runs, find_runs

MakeRun = Callable[..., Path]


def test_seeds_are_one_entry_with_mean_and_spread(make_run: MakeRun) -> None:
    runs = [
        make_run(f"lr_{lr}__seed_{seed}", [3.0, lr * 100 + seed], lr, seed) for lr in (0.01, 0.02) for seed in (0, 1)
    ]
    comparison = compare_runs(runs)
    first, second = comparison.entries
    assert (first.name, list(first.seeds), first.settings) == ("lr_0.01", [0, 1], {"optimizer.lr": 0.01})
    assert second.name == "lr_0.02"
    spread = first.metrics["s/test/loss"]
    assert spread.mean == 1.5 and spread.deviation == pytest.approx(0.5**0.5)
    assert comparison.by == "s/test/loss" and comparison.best == "lowest"
    assert [len(curves) for curves in first.curves.values()] == [2, 2]


def test_a_stages_copy_of_a_shared_key_is_told_once_and_what_changes_nothing_never(make_run: MakeRun) -> None:
    runs = [make_run("a", [1.0], 0.01), make_run("b", [2.0], 0.02)]
    assert compare_runs(runs).keys == ["optimizer.lr"]


def test_the_best_comes_first_and_unfinished_last(make_run: MakeRun, mark_trial: Callable[..., object]) -> None:
    runs = [
        make_run("bad", [3.0], 1.0, accuracy=0.1),
        make_run("good", [1.0], 2.0, accuracy=0.3),
        make_run("nan", [float("nan")], 3.0, accuracy=0.9),
        make_run("half", [0.5], 4.0, done=False),
    ]
    mark_trial(runs[3], 3, outcome="failed", reason="killed by SIGKILL")
    names = [entry.name for entry in compare_runs(runs).entries]
    assert names == ["good", "bad", "nan", "half"]
    by_accuracy = compare_runs(runs, "s/accuracy")
    assert [entry.name for entry in by_accuracy.entries] == ["nan", "good", "bad", "half"]
    assert by_accuracy.entries[3].state == "failed" and by_accuracy.entries[3].reason == "killed by SIGKILL"
    with pytest.raises(ValueError, match="no run has s/nothing yet; there are s/loss"):
        compare_runs(runs, "s/nothing")


def test_runs_are_named_by_themselves_or_by_what_they_lie_in(make_run: MakeRun, tmp_path: Path) -> None:
    first, second = make_run("home/a", [1.0]), make_run("home/b", [1.0])
    assert find_runs([str(first), str(first)]) == [first]
    assert find_runs([str(tmp_path / "home")]) == [first, second]
    with pytest.raises(ValueError, match="there is no run in nowhere"):
        find_runs(["nowhere"])


def test_a_run_that_has_just_begun_can_be_compared(make_run: MakeRun) -> None:
    runs = [make_run("a", [], 0.1, done=False), make_run("b", [], 0.2, done=False)]
    comparison = compare_runs(runs)
    assert [entry.state for entry in comparison.entries] == ["stopped", "stopped"]
    assert comparison.metrics == ["s/loss"] and comparison.curves == []


def test_a_sweep_says_itself_what_is_best(
    make_run: MakeRun, mark_trial: Callable[..., object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = SweepFolder(tmp_path / "sweep")
    sweep.write({"name": "mine", "num_trials": 2, "sweep": {"metric": "s/accuracy", "direction": "lowest"}})
    for number, accuracy in enumerate((0.9, 0.1)):
        mark_trial(make_run(f"sweep/lr_{number}", [1.0 + number], float(number), accuracy=accuracy), number)
    assert main(["compare", "sweep", "--html=page.html"]) == 0
    told = capsys.readouterr()
    assert told.out.index("lr_1") < told.out.index("lr_0") and "Ordered by s/accuracy, lowest first" in told.out
    assert "<h1>vlmtrain compare</h1>" in Path("page.html").read_text()
    assert main(["compare", "sweep", "--by=s/test/loss"]) == 0
    assert "Ordered by s/test/loss, lowest first" in capsys.readouterr().out
