"""How a trial's end is understood."""

import json
import signal
from pathlib import Path

import pytest

from vlmtrain.launch.sweep_folder import DONE, FAILED, PRUNED, WAITING, Trial, write_trial
from vlmtrain.sweeps.trial_process import conclude


@pytest.mark.parametrize(
    ("code", "hopeless", "asked", "state", "reason"),
    [
        (0, False, False, FAILED, "no summary"),  # it ended well and has no result: that is not done
        (143, True, False, PRUNED, "worse than the others"),
        (128 + signal.SIGUSR1, True, False, PRUNED, "worse than the others"),
        (143, False, False, WAITING, ""),
        (143, False, True, WAITING, ""),
        (128 + signal.SIGUSR1, False, True, WAITING, ""),
        (129, False, False, WAITING, ""),
        (137, False, False, FAILED, "killed by SIGKILL; was it killed for memory?"),
        (139, True, False, FAILED, "killed by SIGSEGV"),
        (3, True, False, FAILED, "no summary (exit code 3)"),
    ],
)
def test_an_exit_code_is_told_as_what_it_means(
    code: int, hopeless: bool, asked: bool, state: str, reason: str, tmp_path: Path
) -> None:
    trial = Trial(tmp_path / "a", 0, [])
    write_trial(trial)
    (tmp_path / "a" / "logs" / "trial.log").write_text("training\nno summary\nThe whole story is in x\n\n")
    ended = conclude(trial, code, hopeless, asked)
    assert ended.state == state and ended.reason.startswith(reason)


def test_a_result_counts_whatever_the_code(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "a", 0, [])
    write_trial(trial)
    (tmp_path / "a" / "summary.json").write_text(json.dumps({"state": "done"}))
    assert conclude(trial, 143, True).state == DONE


def test_silence_is_told_as_well(tmp_path: Path) -> None:
    trial = Trial(tmp_path / "a", 0, [])
    write_trial(trial)
    assert "not a word in" in conclude(trial, 1).reason
