"""The folder of a sweep: how its trials stand, and what `status` makes of it."""

import json
from pathlib import Path

import pytest

from vlmtrain.config.stored import write_config
from vlmtrain.launch.status import show_status
from vlmtrain.launch.sweep_folder import DONE, FAILED, PRUNED, WAITING, SweepFolder, Trial, read_trial, write_trial


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder(tmp_path / "runs" / "sweeps" / "mine-1")
    folder.write({"name": "mine", "num_trials": 5})
    for number, outcome in enumerate(["", FAILED, PRUNED, ""]):
        trial = Trial(folder.folder / f"seed_{number}", number, [f"seed={number}"], {}, outcome, outcome and "why")
        write_trial(trial)
        write_config({"experiment": "toy", "stages": {"s": {"trainer": {"max_steps": 9}}}}, trial.folder)
    (folder.folder / "seed_0" / "summary.json").write_text(json.dumps({"state": "done"}))
    return folder


def test_a_trial_stands_as_its_folder_says(sweep: SweepFolder) -> None:
    assert [trial.state for trial in sweep.trials()] == [DONE, FAILED, PRUNED, WAITING]
    assert sweep.find(1) == read_trial(sweep.folder / "seed_1") and sweep.find(7) is None
    (sweep.folder / "seed_1" / "summary.json").write_text(json.dumps({"state": "done"}))
    assert sweep.trials()[1].state == DONE, "what has come to its end did not fail"


def test_status_has_a_line_for_a_sweep_and_on_asking_one_for_each_trial(
    sweep: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show_status([]) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    wanted = "runs/sweeps/mine-1 sweep mine stopped 5 trials: 1 done, 1 failed, 1 pruned, 1 stopped, 1 to come"
    assert " ".join(line.split()) == wanted
    assert show_status(["runs/sweeps/mine-1"]) == 0
    states = [line.split()[2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert states == ["done", "failed", "pruned", "stopped"]


def test_a_folder_without_a_sweep_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no sweep"):
        SweepFolder(tmp_path).read()
