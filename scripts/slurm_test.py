"""Trains under SLURM through time limits, and compares what comes out with an uninterrupted run of as many ranks.

    scripts/local_slurm.sh up /tmp/slurm && export SLURM_CONF=/tmp/slurm/slurm.conf
    python scripts/slurm_test.py --limits 3 -- +experiment=blip2_opt trainer.max_steps=60 ...

Two nodes of two tasks each, both on this host.  The job is submitted once.  Each time it has trained for some steps,
rank 0 is stopped and the job's time limit lowered, as an administrator may, to less than the three minutes that it
asked to be told before; SLURM, which looks at limits every thirty seconds, sends the signal, and rank 0 may go on.  So
the limit is met in training on a machine of any speed, and nobody waits for an hour of training to pass.  The job
saves, goes back into the queue and goes on in the same run folder.  It passes if it was requeued `--limits` times at
least, came to its end, and every tensor, the sample log and metrics.jsonl equal those of the same run on four local
processes.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vlmtrain.faults.comparison import compare
from vlmtrain.launch.slurm import job_states, read_job
from vlmtrain.training.heartbeat import Beat, read_beat, state_of

POLL_SECONDS = 0.2
MINUTES = 60  # the time limit that the job asks for
MINUTES_TO_SAVE = 3
STEPS_BETWEEN = 4  # that it trains after each start, and before a limit
SECONDS_OF_A_LOOK = 150.0  # until SLURM must have looked at limits
LAUNCHER = [
    "launcher=slurm", "launcher.nodes=2", "launcher.tasks_per_node=2", "launcher.gpus_per_node=0",
    "launcher.cpus_per_task=1", f"launcher.time={MINUTES}", f"launcher.seconds_to_save={60 * MINUTES_TO_SAVE}",
]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=int, default=3, help="time limits that it has to live through")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds until it counts as stuck")
    parser.add_argument("--folder", type=Path, default=Path("runs/slurm_test"))
    parser.add_argument("overrides", nargs="+", help="after --: what stands behind `vlmtrain`")
    arguments = parser.parse_args()
    home = arguments.folder.resolve()
    shared = [*arguments.overrides, "distributed=ddp"]
    reference, folder = home / "reference", home / "slurm"
    subprocess.run(_command([*shared, "distributed.num_processes=4", f"run_dir={reference}"]), check=True)
    begun = time.monotonic()
    subprocess.run(_command([*shared, *LAUNCHER, f"run_dir={folder}"]), check=True)
    submitting = time.monotonic() - begun
    job = read_job(folder)
    assert job is not None
    requeued = _wait(folder, job, arguments.limits, begun + arguments.patience)
    differences = compare(reference, folder)
    told = {"command": arguments.overrides, "seconds_to_submit": submitting, "requeued": requeued}
    told |= {"seconds": time.monotonic() - begun, "differences": differences}
    (home / "slurm_test.json").write_text(json.dumps(told, indent=1) + "\n")
    sys.stderr.write(
        f"submitted in {submitting:.1f} s, requeued {requeued} times, done after {told['seconds']:.0f} s, "
        f"{differences or 'identical'}\n"
    )
    return 0 if requeued >= arguments.limits and not differences else 1


def _command(overrides: list[str]) -> list[str]:
    return [sys.executable, "-m", "vlmtrain.main", *overrides]


def _wait(folder: Path, job: str, limits: int, deadline: float) -> int:
    """How often the job went back into the queue until the run was done; it meets `limits` limits."""
    begun: dict[tuple[int, int], Beat] = {}  # a process of rank 0, and when it was started -> where it began
    met: set[tuple[int, int]] = set()
    is_low = False
    while not (folder / "summary.json").is_file():
        state = job_states([job]).get(job, "")
        if time.monotonic() > deadline or state in ("FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"):
            raise RuntimeError(f"job {job} is {state or 'gone'} and the run is not done; see {folder / 'logs'}")
        if state.startswith("PENDING") and is_low:
            _limit(job, MINUTES)
            is_low = False
        beat = read_beat(folder / "logs" / "ranks" / "rank0.json")
        if state == "RUNNING" and len(met) < limits and beat is not None and beat.phase in ("batch", "step"):
            process = (beat.pid, beat.started)
            first = begun.setdefault(process, beat)
            if process not in met and (beat.stage != first.stage or beat.step >= first.step + STEPS_BETWEEN):
                _meet_limit(job, beat.pid)
                met.add(process)
                is_low = True
        time.sleep(POLL_SECONDS)
    return (folder / "logs" / f"slurm-{job}.log").read_text().count("back into the queue")


def _meet_limit(job: str, process: int) -> None:
    """Holds rank 0 until SLURM has told it that its time is nearly up; SLURM may wake it for that by itself."""
    os.kill(process, signal.SIGSTOP)
    deadline = time.monotonic() + SECONDS_OF_A_LOOK
    try:
        _limit(job, _minutes_used(job) + MINUTES_TO_SAVE)
        time.sleep(POLL_SECONDS)
        while (state := state_of(process)) is not None and state.letter == "T" and not _is_told(process):
            if time.monotonic() > deadline:
                raise RuntimeError(f"job {job} was told nothing of its time limit for {SECONDS_OF_A_LOOK:.0f} s")
            time.sleep(POLL_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def _is_told(process: int) -> bool:
    """Does SIGUSR1 wait for the process?"""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True
    pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return bool(pending >> (signal.SIGUSR1 - 1) & 1)


def _limit(job: str, minutes: int) -> None:
    subprocess.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"], check=True)


def _minutes_used(job: str) -> int:
    """Whole minutes since it was started, of less than an hour."""
    command = ["squeue", "--noheader", "--format=%M", f"--jobs={job}"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(":")[0])


if __name__ == "__main__":
    sys.exit(main())
