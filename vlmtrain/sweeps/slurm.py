"""A sweep as a job array: one task per trial, submitted at once; nothing is left waiting on the login node."""

import sys
from pathlib import Path
from typing import Any

from vlmtrain.config.sweep import Sweep
from vlmtrain.launch.run_folder import say
from vlmtrain.launch.slurm import GONE, SCRIPT, job_states, read_job, require_sbatch, submit
from vlmtrain.launch.slurm_script import job_options, surround
from vlmtrain.launch.sweep_folder import OVER, SweepFolder
from vlmtrain.sweeps.asked import Asked, compose_trial
from vlmtrain.sweeps.plans import make_plan
from vlmtrain.sweeps.preparing import prepare
from vlmtrain.training.run_lock import who_holds

LOGS = "logs"


def launch(asked: Asked, sweep: Sweep, folder: SweepFolder, at_once: int | None) -> int:
    """Submits the trials that are not over; gives the exit code."""
    config = compose_trial(asked.example, asked.config_dirs)
    require_sbatch(config)
    if config["launcher"]["chain_stages"]:
        raise ValueError("launcher.chain_stages is for a single run: a trial of a sweep is one task of a job array.")
    home = folder.folder.resolve()
    job = read_job(home)
    if job is not None and (tasks := living_tasks(job)):
        raise ValueError(f"{home} is job {job} already ({', '.join(tasks[:4])}); scancel {job} ends it.")
    if holder := who_holds(home):
        raise ValueError(f"{home} is in use by {holder}; wait for it, or give another folder with run_dir=")
    plan = make_plan(sweep)
    states = {trial.number: trial.state for trial in folder.trials()}
    if sweep.search is None:  # what is known beforehand keeps its folder, however the numbers have moved
        states = {number: prepare(sweep, plan, folder, number).state for number in range(plan.num_trials)}
    left = [number for number in range(plan.num_trials) if states.get(number) not in OVER]
    if not left:
        say("nothing left to do")
        return 0
    (home / LOGS).mkdir(exist_ok=True)
    script = home / SCRIPT
    script.write_text(write_script(config, asked.name, home, left, at_once), encoding="utf-8")
    if config["launcher"]["dry_run"]:
        say(f"written, not submitted: sbatch {script}")
        return 0
    job = submit(script)
    say(f"job {job} in the queue, {len(left)} tasks; vlmtrain status {folder.folder}; the leaderboard grows there")
    return 0


def write_script(config: dict[str, Any], name: str, home: Path, numbers: list[int], at_once: int | None) -> str:
    """The batch script; a task's number is its trial's."""
    limit = f"%{at_once}" if at_once else ""
    options = ["--requeue", f"--array={','.join(map(str, numbers))}{limit}"]
    options += job_options(config, f"sweep-{name}", home / LOGS / "slurm-%A_%a.log")
    command = [sys.executable, "-m", "vlmtrain.sweeps.array_task", str(home)]
    return surround(config, home, options, command, Path.cwd(), ' "$SLURM_ARRAY_TASK_ID"')


def living_tasks(job: str) -> list[str]:
    """`12_3 RUNNING` for every task of an array that is queued or runs."""
    return [f"{task} {state}" for task, state in job_states([job]).items() if state.split(" ")[0] not in GONE]
