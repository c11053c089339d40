"""`vlmtrain status` and `vlmtrain logs`: what the runs are doing, read from their folders and from SLURM."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vlmtrain.config.stored import CONFIG_FILE, read_config
from vlmtrain.launch.run_folder import RUNS, is_finished
from vlmtrain.launch.slurm import GONE, job_states, read_job
from vlmtrain.launch.sweep_folder import OVER, SWEEP_FILE, SweepFolder, is_sweep, read_trial, runs_of
from vlmtrain.tracking.jsonl import read_rows
from vlmtrain.training.run_lock import who_holds

FOLLOW_SECONDS = 5.0  # each look asks SLURM's controller, which serves the whole cluster
OVER_FOR_NOW = ("done", "stopped", "failed", "pruned")
UNCUT = 400  # columns of a table that goes into a file or a pipe


@dataclass(frozen=True)
class Standing:
    """How far a run is."""

    folder: Path
    experiment: str
    state: str
    progress: str
    job: str = ""


def show_status(folders: list[str]) -> int:
    """A table of the runs and sweeps in `folders` (runs, sweeps, or folders of them); none named: those in runs/."""
    places = [Path(folder).expanduser() for folder in folders or [str(RUNS)]]
    found = sorted({run for folder in places for run in _runs_below(folder)})
    sweeps = sorted({sweep for folder in places for sweep in _sweeps_below(folder)})
    if not found and not sweeps:
        where = ", ".join(folders) or f"{RUNS}/"
        raise ValueError(f"there is no run in {where}; a run is a folder with {CONFIG_FILE}")
    table = Table(box=None, pad_edge=False)
    for heading in ("run", "experiment", "state", "progress", "job"):
        table.add_column(heading, no_wrap=True)
    for standing in [*standings(found), *map(_standing_of_sweep, sweeps)]:
        here = Path.cwd()
        place = standing.folder.relative_to(here) if standing.folder.is_relative_to(here) else standing.folder
        table.add_row(str(place), standing.experiment, standing.state, standing.progress, standing.job)
    Console(width=None if sys.stdout.isatty() else UNCUT).print(table)
    return 0


def standings(runs: list[Path]) -> list[Standing]:
    """How far each is; SLURM is asked once for all."""
    jobs = {run: job for run in runs if (job := read_job(run)) is not None}
    states = job_states(list(jobs.values()))
    return [_standing(run, jobs.get(run, ""), states.get(jobs.get(run, ""), "")) for run in runs]


def show_logs(words: list[str], follow: bool) -> int:
    """What a run printed under SLURM and which errors it met, oldest first; with `follow` whatever comes, until the run
    is over."""
    if len(words) != 1:
        raise ValueError("vlmtrain logs wants one run: vlmtrain logs runs/latest -f")
    folder = Path(words[0]).expanduser()
    read_config(folder)
    shown: dict[Path, int] = {}
    while True:
        over = not follow or standings([folder.resolve()])[0].state in OVER_FOR_NOW
        for file in sorted((folder / "logs").glob("*.log"), key=lambda each: each.stat().st_mtime):
            with file.open("rb") as log:
                log.seek(shown.get(file, 0))
                sys.stdout.write(log.read().decode("utf-8", errors="replace"))
                shown[file] = log.tell()
            sys.stdout.flush()
        if over:
            break
        time.sleep(FOLLOW_SECONDS)
    if not any(shown.values()):
        sys.stderr.write(f"vlmtrain: nothing is in {folder / 'logs'}; runs of this machine print where they run\n")
    return 0


def _runs_below(folder: Path) -> list[Path]:
    if (folder / CONFIG_FILE).is_file():
        return [folder.resolve()]
    if is_sweep(folder):
        return [run.resolve() for run in runs_of(folder)]
    runs = [file.parent.resolve() for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{CONFIG_FILE}")]
    return [run for run in runs if not is_sweep(run.parent)]


def _sweeps_below(folder: Path) -> list[Path]:
    return [file.parent.resolve() for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{SWEEP_FILE}")]


def _standing_of_sweep(folder: Path) -> Standing:
    """A sweep in one line; `vlmtrain status FOLDER` has one for each trial."""
    asked, job = SweepFolder(folder).read(), read_job(folder)
    states = [standing.state for standing in standings(runs_of(folder))]
    waiting = asked["num_trials"] - len(states)
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    told = [f"{count} {state}" for state, count in counts.items()] + ([f"{waiting} to come"] if waiting else [])
    alive = [state for state in job_states([job]).values() if state.split(" ")[0] not in GONE] if job else []
    state = "done" if sum(counts.get(over, 0) for over in OVER) == asked["num_trials"] else "stopped"
    if state != "done" and ("running" in counts or who_holds(folder) or alive):
        state = "queued" if alive and all(each.startswith("PENDING") for each in alive) else "running"
    progress = f"{asked['num_trials']} trials: {', '.join(told)}"
    return Standing(folder, f"sweep {asked['name']}", state, progress, job or "")


def _standing(run: Path, job: str, job_state: str) -> Standing:
    config = read_config(run)
    state = "stopped"
    if is_finished(run):
        state = "done"
    elif who_holds(run):
        state = "running"
    elif job_state.split(" ")[0] not in GONE:
        state = "queued" if job_state.startswith("PENDING") else "starting"
    trial = read_trial(run)
    if state == "stopped" and trial is not None and trial.outcome:
        state = trial.outcome
    told = f"{job} {job_state}".strip() if job and state != "done" else job
    return Standing(run, config["experiment"] or "", state, _progress(run, config), told)


def _progress(run: Path, config: dict[str, Any]) -> str:
    rows, stages = read_rows(run / "metrics.jsonl"), config["stages"]
    if not rows or rows[-1].stage not in stages:
        return "not begun"
    stage, place = rows[-1].stage, list(stages).index(rows[-1].stage) + 1
    return f"{stage} {place}/{len(stages)}, step {rows[-1].step}/{stages[stage]['trainer']['max_steps']}"
