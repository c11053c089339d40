"""Kills a run with SIGKILL at random moments, runs it again, and compares what comes out with an uninterrupted run.

    python scripts/kill_test.py --runs 20 -- +experiment=blip2_opt
    python scripts/kill_test.py --runs 1 --kills 20 --reference runs/latest -- +experiment=blip2_opt

Every interrupted run is killed `--kills` times (its whole process group, at moments spread evenly over the time that
the uninterrupted one took), and then left to finish.  It passes if every tensor of the last checkpoint of every stage,
weights and optimizer state alike, is equal to the bit, the sample log names the same samples at the same steps, and
metrics.jsonl holds the same figures.  Prints a line per run and writes kill_test.json.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from vlmtrain.faults.comparison import compare


def main() -> int:
    arguments = _read_arguments()
    home = arguments.folder
    home.mkdir(parents=True, exist_ok=True)
    reference, seconds = arguments.reference, arguments.seconds
    if reference is None:
        reference = home / "reference"
        shutil.rmtree(reference, ignore_errors=True)
        started = time.monotonic()
        if code := _run(reference, arguments.overrides).wait():
            raise ValueError(f"the run without interruption ended with {code}: see {home / 'reference.log'}")
        seconds = time.monotonic() - started
        _say(f"reference: {seconds:.0f} s without interruption")
    draws = random.Random(arguments.seed)
    outcomes = []
    for number in range(arguments.runs):
        folder = home / f"run-{number:02d}"
        shutil.rmtree(folder, ignore_errors=True)
        moments = _interrupt(folder, arguments, seconds, draws)
        code = _run(folder, arguments.overrides).wait()
        differences = [f"exit code {code}"] if code else compare(reference, folder)
        outcomes.append({"run": number, "killed_after_seconds": moments, "differences": differences})
        _say(f"run {number}: {len(moments)} kills, {'identical' if not differences else differences[:3]}")
        if not differences:
            shutil.rmtree(folder)
    good = sum(not outcome["differences"] for outcome in outcomes)
    told = {"command": arguments.overrides, "seconds": seconds, "identical": good, "runs": outcomes}
    (home / "kill_test.json").write_text(json.dumps(told, indent=1) + "\n")
    kills = sum(len(outcome["killed_after_seconds"]) for outcome in outcomes)
    _say(f"{good}/{arguments.runs} runs identical to the uninterrupted one, {kills} kills")
    return 0 if good == arguments.runs else 1


def _interrupt(folder: Path, arguments: argparse.Namespace, seconds: float, draws: random.Random) -> list[float]:
    """Start and kill, again and again; gives after how many seconds each process was killed."""
    moments = []
    for _ in range(arguments.kills):
        process = _run(folder, arguments.overrides)
        moment = draws.uniform(0.5, seconds if arguments.kills == 1 else max(20.0, 2.0 * seconds / arguments.kills))
        try:
            process.wait(timeout=moment)
            break  # it was done before the kill came
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        moments.append(round(moment, 2))
    return moments


def _run(folder: Path, overrides: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vlmtrain.main", *overrides, f"run_dir={folder}"]
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="interrupted runs")
    parser.add_argument("--kills", type=int, default=1, help="kills per run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/kill_test"))
    parser.add_argument("--reference", type=Path, help="an uninterrupted run of the same command; else one is made")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long the reference took")
    parser.add_argument("overrides", nargs="+", help="after --: what stands behind `vlmtrain`")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
