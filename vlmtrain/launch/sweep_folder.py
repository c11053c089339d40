"""One sweep, one folder: what was asked for (sweep.json), and a run folder for every trial, with how it stands."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmtrain.config.stored import CONFIG_FILE
from vlmtrain.launch.run_folder import RUNS, is_finished
from vlmtrain.tracking.jsonl import to_strict_json, write_atomically
from vlmtrain.training.run_lock import who_holds

SWEEP_FILE, TRIAL_FILE = "sweep.json", "trial.json"
SWEEPS = RUNS / "sweeps"
# How a trial stands.  Done, running and waiting are seen in its folder; the others are written down when it ends.
DONE, PRUNED, FAILED, RUNNING, WAITING = "done", "pruned", "failed", "running", "waiting"
OVER = (DONE, PRUNED)


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.  `outcome` is what was written when it ended last, '' while it has not."""

    folder: Path
    number: int
    overrides: list[str]  # of the command that repeats it
    values: Mapping[str, Any] = field(default_factory=dict)  # what a search proposed
    outcome: str = ""
    reason: str = ""
    attempts: int = 0

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> str:
        """One of the five, as of now."""
        if is_finished(self.folder):
            return DONE
        if self.outcome != PRUNED and who_holds(self.folder):
            return RUNNING
        return self.outcome or WAITING


class SweepFolder:
    """The folder of a sweep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, asked: Mapping[str, Any]) -> None:
        """What the sweep is; a trial that starts later composes its run from it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / SWEEP_FILE, json.dumps(to_strict_json(asked), indent=1) + "\n")

    def read(self) -> dict[str, Any]:
        """ValueError where the folder holds no sweep."""
        file = self.folder / SWEEP_FILE
        if not file.is_file():
            raise ValueError(f"{self.folder} holds no sweep: there is no {SWEEP_FILE} in it")
        asked: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return asked

    def trials(self) -> list[Trial]:
        """Those that have a folder, by number."""
        files = self.folder.glob(f"*/{TRIAL_FILE}")
        return sorted((_read_trial(file) for file in files), key=lambda trial: trial.number)

    def find(self, number: int) -> Trial | None:
        """The trial of this number, if it has a folder."""
        return next((trial for trial in self.trials() if trial.number == number), None)


def write_trial(trial: Trial) -> None:
    """Makes the folder and writes down how the trial stands."""
    (trial.folder / "logs").mkdir(parents=True, exist_ok=True)
    kept = {
        "number": trial.number,
        "overrides": trial.overrides,
        "values": dict(trial.values),
        "outcome": trial.outcome,
        "reason": trial.reason,
        "attempts": trial.attempts,
    }
    write_atomically(trial.folder / TRIAL_FILE, json.dumps(to_strict_json(kept), indent=1) + "\n")


def read_trial(folder: Path) -> Trial | None:
    """The trial that a run folder is; None where the run is no part of a sweep."""
    file = folder / TRIAL_FILE
    return _read_trial(file) if file.is_file() else None


def is_sweep(folder: Path) -> bool:
    return (folder / SWEEP_FILE).is_file()


def runs_of(folder: Path) -> list[Path]:
    """The trials of a sweep that have a configuration, by number."""
    return [trial.folder for trial in SweepFolder(folder).trials() if (trial.folder / CONFIG_FILE).is_file()]


def _read_trial(file: Path) -> Trial:
    kept = json.loads(file.read_text(encoding="utf-8"))
    return Trial(file.parent, **kept)
