"""Submits a run to SLURM and returns; nothing is left waiting on the login node."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from vlmtrain.launch.run_folder import choose_folder, has_work, open_folder, say
from vlmtrain.launch.settling import settle
from vlmtrain.launch.slurm_script import write_script
from vlmtrain.training.run_lock import who_holds

SCRIPT, JOB = "job.sbatch", "job.json"
RESULTS = "results"  # vlmtrain.results.FOLDER, which torch is not loaded for here
GONE = ("", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")


def launch(config: dict[str, Any], start_fresh: bool = False, with_traceback: bool = False) -> int:
    """Writes the batch script into the run folder and hands it to `sbatch`; gives the exit code."""
    choice = choose_folder(config, start_fresh)
    folder = choice.folder.resolve()
    require_sbatch(config)
    job = read_job(folder)
    if job is not None and (state := job_states([job]).get(job, "")) not in GONE:
        raise ValueError(f"{folder} is job {job} already ({state}); scancel {job} ends it.")
    if holder := who_holds(folder):
        raise ValueError(f"{folder} is in use by {holder}; wait for it, or give another folder with run_dir=")
    if not has_work(choice, config, start_fresh):
        return 0
    open_folder(choice, settle(config, folder))
    scripts = _write_scripts(config, folder)
    if config["launcher"]["dry_run"]:
        say(f"written, not submitted: sbatch {', sbatch '.join(map(str, scripts))}")
        return 0
    job = None
    for script in scripts:  # each waits for the one before; the last stands for the run
        job = submit(script, job)
        say(f"job {job} in the queue; vlmtrain status, vlmtrain logs {choice.folder} -f")
    return 0


def _write_scripts(config: dict[str, Any], folder: Path) -> list[Path]:
    """One for the run, or one for each stage that is not done."""
    stages = [name for name in config["stages"] if not (folder / RESULTS / f"{name}.json").is_file()]
    if not config["launcher"]["chain_stages"] or len(stages) < 2:
        (folder / SCRIPT).write_text(write_script(config, folder, Path.cwd()), encoding="utf-8")
        return [folder / SCRIPT]
    scripts = [folder / f"job-{name}.sbatch" for name in stages]
    for name, script in zip(stages, scripts, strict=True):
        script.write_text(write_script(config, folder, Path.cwd(), name), encoding="utf-8")
    return scripts


def read_job(folder: Path) -> str | None:
    """The number of the job that the run was last submitted as."""
    file = folder / JOB
    return str(json.loads(file.read_text(encoding="utf-8"))["job"]) if file.is_file() else None


def job_states(jobs: list[str]) -> dict[str, str]:
    """Job -> its state and why it waits, as far as SLURM still knows of it."""
    if not jobs or shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--noheader", "--states=all", "--format=%i %T %r", f"--jobs={','.join(jobs)}"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)  # an unknown job is an error of its own
    states = {}
    for line in told.stdout.splitlines():
        job, state, reason = line.split(maxsplit=2)
        states[job] = state if reason == "None" or state != "PENDING" else f"{state} ({reason})"
    return states


def require_sbatch(config: dict[str, Any]) -> None:
    """ValueError where this machine cannot submit."""
    if not config["launcher"]["dry_run"] and shutil.which("sbatch") is None:
        raise ValueError(
            "launcher=slurm needs sbatch, which is not on the PATH here: go to a login node of the cluster, or write "
            "the script only with launcher.dry_run=true."
        )


def submit(script: Path, after: str | None = None) -> str:
    """The number of the job, which is kept beside the script; it begins when job `after` has ended well."""
    waiting = [] if after is None else [f"--dependency=afterok:{after}", "--kill-on-invalid-dep=yes"]
    command = ["sbatch", "--parsable", *waiting, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip() or "no reason given"
        raise ValueError(f"sbatch refused {script}: {told}. Change launcher.* and type the command again.")
    job = done.stdout.strip().split(";")[0]
    (script.parent / JOB).write_text(json.dumps({"job": job}) + "\n", encoding="utf-8")
    return job
