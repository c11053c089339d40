"""Trains under SLURM through time limits, and compares what comes out with an uninterrupted run of as many ranks.

    scripts/local_slurm.sh up /tmp/slurm && export SLURM_CONF=/tmp/slurm/slurm.conf
    python scripts/slurm_test.py --limits 3 -- +experiment=blip2_opt trainer.max_steps=60 ...

Two nodes of two tasks each.  The job is submitted once, with a time limit of two minutes; a minute before it the job
saves, goes back into the queue and goes on in the same run folder.  It passes if it was requeued `--limits` times at
least, came to its end, and every tensor, the sample log and metrics.jsonl equal those of the same run on four local
processes.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from vlmtrain.faults.comparison import compare
from vlmtrain.launch.slurm import job_states, read_job

POLL_SECONDS = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limits", type=int, default=3, help="time limits that it has to live through")
    parser.add_argument("--minutes", type=int, default=2, help="the time limit")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds until it counts as stuck")
    parser.add_argument("--folder", type=Path, default=Path("runs/slurm_test"))
    parser.add_argument("overrides", nargs="+", help="after --: what stands behind `vlmtrain`")
    arguments = parser.parse_args()
    home = arguments.folder.resolve()
    shared = [*arguments.overrides, "distributed=ddp"]
    reference, folder = home / "reference", home / "slurm"
    subprocess.run(_command([*shared, "distributed.num_processes=4", f"run_dir={reference}"]), check=True)
    launcher = ["launcher=slurm", "launcher.nodes=2", "launcher.tasks_per_node=2", "launcher.gpus_per_node=0"]
    launcher += ["launcher.cpus_per_task=1", f"launcher.time={arguments.minutes}", "launcher.seconds_to_save=60"]
    begun = time.monotonic()
    subprocess.run(_command([*shared, *launcher, f"run_dir={folder}"]), check=True)
    submitting = time.monotonic() - begun
    job = read_job(folder)
    assert job is not None
    requeued = _wait(folder, job, begun + arguments.patience)
    differences = compare(reference, folder)
    told = {"command": arguments.overrides, "seconds_to_submit": submitting, "requeued": requeued}
    told |= {"seconds": time.monotonic() - begun, "differences": differences}
    (home / "slurm_test.json").write_text(json.dumps(told, indent=1) + "\n")
    sys.stderr.write(f"submitted in {submitting:.1f} s, requeued {requeued} times, {differences or 'identical'}\n")
    return 0 if requeued >= arguments.limits and not differences else 1


def _command(overrides: list[str]) -> list[str]:
    return [sys.executable, "-m", "vlmtrain.main", *overrides]


def _wait(folder: Path, job: str, deadline: float) -> int:
    """How often the job went back into the queue until the run was done."""
    while not (folder / "summary.json").is_file():
        state = job_states([job]).get(job, "")
        if time.monotonic() > deadline or state in ("FAILED", "CANCELLED", "NODE_FAIL"):
            raise RuntimeError(f"job {job} is {state or 'gone'} and the run is not done; see {folder / 'logs'}")
        time.sleep(POLL_SECONDS)
    return (folder / "logs" / f"slurm-{job}.log").read_text().count("back into the queue")


if __name__ == "__main__":
    sys.exit(main())
