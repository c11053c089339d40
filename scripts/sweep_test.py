"""Kills one trial of a sweep, runs the sweep again, and sees whether every trial has come to its end.

    python scripts/sweep_test.py -- experiment=prefix_lm optimizer.lr=1e-4,1e-3,1e-2 seed=0,1 ...

    scripts/local_slurm.sh up /tmp/slurm && export SLURM_CONF=/tmp/slurm/slurm.conf
    python scripts/sweep_test.py --slurm -- experiment=prefix_lm ...     # the same as a job array

The training process of the trial `--kill` (by its number) gets SIGKILL once it has written metrics.  It passes if that
trial alone is marked as failed and all others come to their end; if the same command then trains it alone; and if one
leaderboard holds all of them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vlmtrain.launch.slurm import read_job
from vlmtrain.launch.sweep_folder import DONE, FAILED, SweepFolder
from vlmtrain.sweeps.slurm import living_tasks
from vlmtrain.training.run_lock import NAME

LOOK_SECONDS = 0.2
ARRAY = ["launcher=slurm", "launcher.gpus_per_node=0", "launcher.cpus_per_task=1", "launcher.time=30"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slurm", action="store_true", help="as a job array")
    parser.add_argument("--kill", type=int, default=2, help="number of the trial that is killed")
    parser.add_argument("--at-once", type=int, default=1, help="trials at a time")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds until it counts as stuck")
    parser.add_argument("--folder", type=Path, default=Path("runs/sweep_test"))
    parser.add_argument("overrides", nargs="+", help="after --: what stands behind `vlmtrain -m`")
    arguments = parser.parse_args()
    folder = SweepFolder(arguments.folder.resolve())
    typed = [*arguments.overrides, f"run_dir={folder.folder}", *(ARRAY if arguments.slurm else [])]
    command = [sys.executable, "-m", "vlmtrain.main", "-m", f"--at-once={arguments.at_once}", *typed]
    deadline = time.monotonic() + arguments.patience
    first = _run(command, folder, deadline, arguments.kill)
    after_kill = {trial.number: trial.state for trial in folder.trials()}
    reason = next((trial.reason for trial in folder.trials() if trial.outcome == FAILED), "")
    finished = _endings(folder)
    second = _run(command, folder, deadline, None)
    at_the_end = {trial.number: trial.state for trial in folder.trials()}
    board = json.loads((folder.folder / "leaderboard.json").read_text())
    on_board = sum(len(entry["folders"]) for entry in board["entries"])
    total = folder.read()["num_trials"]
    wanted = {number: FAILED if number == arguments.kill else DONE for number in range(total)}
    passed = {
        "the killed trial alone is marked as failed": after_kill == wanted,
        "it says why": "SIGKILL" in reason,
        "all are done after the same command": at_the_end == dict.fromkeys(range(total), DONE),
        "finished trials were left alone": all(_endings(folder)[run] == at for run, at in finished.items()),
        "one leaderboard holds all": on_board == total,
    }
    told = {"command": typed, "slurm": arguments.slurm, "seconds": [first, second], "reason": reason, "passed": passed}
    (folder.folder / "sweep_test.json").write_text(json.dumps(told, indent=1) + "\n")
    for what, is_so in passed.items():
        sys.stderr.write(f"{'yes' if is_so else 'NO '}  {what}\n")
    sys.stderr.write(f"{total} trials, {first:.0f} s and {second:.0f} s; the reason: {reason}\n")
    return 0 if all(passed.values()) else 1


def _run(command: list[str], folder: SweepFolder, deadline: float, victim: int | None) -> float:
    """Runs the command, kills the victim when it trains, waits until nothing is left; gives the seconds."""
    begun = time.monotonic()
    process = subprocess.Popen(command)
    while True:
        if victim is not None and _kill(folder, victim):
            victim = None
        job = read_job(folder.folder) if process.poll() is not None else None
        if process.poll() is not None and not (job and living_tasks(job)):
            return time.monotonic() - begun
        if time.monotonic() > deadline:
            raise RuntimeError(f"nothing has come of it in time; see {folder.folder}")
        time.sleep(LOOK_SECONDS)


def _kill(folder: SweepFolder, number: int) -> bool:
    """Whether the process that holds the trial's lock could be killed while it trained."""
    trial = folder.find(number)
    if trial is None or not (trial.folder / "metrics.jsonl").is_file() or trial.state == DONE:
        return False
    if not (trial.folder / "metrics.jsonl").read_text() or not (holder := _read_lock(trial.folder / NAME)):
        return False
    os.kill(holder["pid"], signal.SIGKILL)
    sys.stderr.write(f"killed process {holder['pid']} of {trial.name}\n")
    return True


def _read_lock(file: Path) -> dict[str, Any]:
    text = file.read_text() if file.is_file() else ""
    lock: dict[str, Any] = json.loads(text) if text else {}
    return lock


def _endings(folder: SweepFolder) -> dict[str, float]:
    """Finished run -> when it ended."""
    files = folder.folder.glob("*/summary.json")
    return {file.parent.name: file.stat().st_mtime for file in files}


if __name__ == "__main__":
    sys.exit(main())
