"""A sweep on this machine, with a stand-in for the training: what is tried, what is left alone, what is stopped."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from vlmtrain.config.sweep import Sweep
from vlmtrain.launch.sweep_folder import DONE, FAILED, PRUNED, WAITING, SweepFolder, Trial
from vlmtrain.sweeps import local
from vlmtrain.sweeps.asked import Asked

METRIC = "s/test/loss"
ASKED = {"name": "mine", "num_trials": 3, "sweep": {"metric": METRIC, "direction": None}}
ROOT = Path(__file__).resolve().parents[2]
# lr is the loss that it comes to; it notes its starts, heeds the stop signal, and does as `how` says
TRAINING = textwrap.dedent("""
    import json, os, pathlib, signal, sys, time
    typed = dict(word.split("=", 1) for word in sys.argv[1:])
    folder, loss, how = pathlib.Path(typed["run_dir"]), float(typed["lr"]), typed.get("how", "")
    with (folder / "starts").open("a") as starts:
        starts.write(f"{how} ")
    signal.signal(signal.SIGUSR1, lambda *ignored: sys.exit(143))
    again = len((folder / "starts").read_text().split()) > 1
    with (folder / "metrics.jsonl").open("w") as file:
        for step in (10, 20, 30):
            metrics = {"test/loss": loss + 30 - step}
            row = {"stage": "s", "step": step, "kind": "evaluation", "metrics": metrics, "timing": {}}
            file.write(json.dumps(row) + "\\n")
            file.flush()
            if how == "slow" and not again:
                time.sleep(60)
            if how == "pausing":
                time.sleep(0.6)
    if how == "killed" and not again:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "wrong":
        print("vlmtrain: something is amiss")
        sys.exit(2)
    (folder / "summary.json").write_text(json.dumps({"state": "done", "metrics": {}, "stages": []}))
""")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(trial: Trial, config_dirs: list[str]) -> list[str]:
        return [sys.executable, "-S", "-c", TRAINING, *trial.overrides, f"run_dir={trial.folder}"]

    monkeypatch.setattr(local, "train_command", command)
    monkeypatch.setattr(local, "open_trial", lambda trial, config_dirs: {})
    monkeypatch.setattr(local, "LOOK_SECONDS", 0.02)


def run(settings: dict[str, list[str]], at_once: int = 1, prune: str | None = None) -> tuple[int, dict[str, Trial]]:
    node = {"_target_": prune, "num_finished": 1} if prune else None
    sweep = Sweep(settings, metric=METRIC, prune=node)
    folder = SweepFolder(Path("sweep"))
    folder.write(ASKED)
    code = local.launch(Asked("mine", sweep, folder.folder, []), sweep, folder, at_once)
    return code, {trial.name: trial for trial in folder.trials()}


def starts(name: str) -> int:
    return len(Path("sweep", name, "starts").read_text().split(" ")) - 1


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_killed_trial_takes_no_other_with_it_and_runs_alone_the_next_time(at_once: int) -> None:
    settings = {"a": ["lr=1"], "b": ["lr=2", "how=killed"], "c": ["lr=3"], "d": ["lr=4", "how=wrong"]}
    code, trials = run(settings, at_once)
    assert code == 1
    assert {name: trial.state for name, trial in trials.items()} == {"a": DONE, "b": FAILED, "c": DONE, "d": FAILED}
    assert trials["b"].reason == "killed by SIGKILL; was it killed for memory?"
    assert trials["d"].reason == "vlmtrain: something is amiss (exit code 2)"
    code, trials = run(settings, at_once)
    assert code == 1 and trials["b"].state == DONE and trials["b"].attempts == 2
    assert [starts(name) for name in "abcd"] == [1, 2, 1, 2]
    settings["d"] = ["lr=4"]
    assert run(settings)[0] == 0
    assert [starts(name) for name in "abcd"] == [1, 2, 1, 3]


def test_a_hopeless_trial_is_stopped_by_its_signal_and_stays_so() -> None:
    settings = {"good": ["lr=1"], "bad": ["lr=9", "how=slow"], "fair": ["lr=0.5", "how=pausing"]}
    pruner = "vlmtrain.sweeps.median_pruning.MedianPruning"
    code, trials = run(settings, prune=pruner)
    assert code == 0
    assert {name: trial.state for name, trial in trials.items()} == {"good": DONE, "bad": PRUNED, "fair": DONE}
    assert run(settings, prune=pruner)[0] == 0 and starts("bad") == 1


SWEEPING = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from vlmtrain.config.sweep import Sweep
    from vlmtrain.launch.sweep_folder import SweepFolder
    from vlmtrain.sweeps import local
    from vlmtrain.sweeps.asked import Asked
    local.open_trial = lambda trial, config_dirs: {{}}
    code = {training!r}
    local.train_command = lambda trial, dirs: [
        sys.executable, "-S", "-c", code, *trial.overrides, f"run_dir={{trial.folder}}"
    ]
    sweep, folder = Sweep({{"a": ["lr=1", "how=slow"], "b": ["lr=2"]}}), SweepFolder(Path("sweep"))
    sys.exit(local.launch(Asked("mine", sweep, folder.folder, []), sweep, folder, 1))
""")


def start_sweep() -> subprocess.Popen[bytes]:
    """In a process of its own, until its first trial trains."""
    SweepFolder(Path("sweep")).write(ASKED)
    code = SWEEPING.format(tests=str(Path(__file__).parent), training=TRAINING)
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not (Path("sweep/a/metrics.jsonl").is_file() and Path("sweep/a/metrics.jsonl").read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process


def test_a_sweep_that_is_asked_to_end_asks_its_trials_and_goes_on_later() -> None:
    process = start_sweep()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 143
    assert [(trial.name, trial.state) for trial in SweepFolder(Path("sweep")).trials()] == [("a", WAITING)]
    code, trials = run({"a": ["lr=1", "how=slow"], "b": ["lr=2"]})
    assert code == 0 and {trial.state for trial in trials.values()} == {DONE}


def test_what_another_process_trains_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code = "from pathlib import Path; from vlmtrain.training.run_lock import RunLock; import sys\n"
    code += "with RunLock(Path('sweep/a')): print('held', flush=True); sys.stdin.read()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        _, trials = run({"a": ["lr=1"], "b": ["lr=2"]})
        assert list(trials) == ["b"] and "a: in use by another process, left alone" in capsys.readouterr().err


def test_trial_json_says_what_happened() -> None:
    run({"a": ["lr=1", "how=wrong"]})
    kept = json.loads(Path("sweep/a/trial.json").read_text())
    assert kept["overrides"] == ["lr=1", "how=wrong"] and kept["outcome"] == FAILED and kept["attempts"] == 1
