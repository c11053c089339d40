"""One run, one folder: which one, and whether it is new."""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmtrain.config.stored import CONFIG_FILE, find_differences, hash_config, read_config, write_config
from vlmtrain.training.run_lock import RunLock

RUNS = Path("runs")
FINISHED_FILE, DONE = "summary.json", "done"


@dataclass(frozen=True)
class Choice:
    """A run's folder and one line that says why this one."""

    folder: Path
    note: str


def choose_folder(config: dict[str, Any], start_fresh: bool) -> Choice:
    """`run_dir` if given; else the newest unfinished run of the same configuration; else a new one.

    ValueError where `run_dir` belongs to another configuration or holds other things than a run.
    """
    if config["run_dir"] is not None:
        return _chosen_by_user(Path(config["run_dir"]).expanduser(), config, start_fresh)
    home, digest = RUNS / (config["experiment"] or "run"), hash_config(config)
    earlier = [] if start_fresh else sorted(home.glob(f"*-{digest}"), reverse=True)
    unfinished = [folder for folder in earlier if (folder / CONFIG_FILE).is_file() and not is_finished(folder)]
    if unfinished:
        return Choice(unfinished[0], f"resuming {unfinished[0]} (unfinished; --fresh starts over)")
    folder = home / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{digest}"
    if earlier:
        return Choice(folder, f"{earlier[0]} is finished; this is a new run in {folder}")
    return Choice(folder, f"new run in {folder}")


def is_finished(folder: Path) -> bool:
    """Whether the run in `folder` has come to its end."""
    file = folder / FINISHED_FILE
    return file.is_file() and json.loads(file.read_text(encoding="utf-8")).get("state", DONE) == DONE


def has_work(choice: Choice, config: dict[str, Any], start_fresh: bool) -> bool:
    """Moves an old run out of the way where one starts over, tells what is about to happen, and whether anything is."""
    if start_fresh and config["run_dir"] is not None and choice.folder.exists():
        with RunLock(choice.folder):
            aside = move_aside(choice.folder)
        say(f"the old run is now in {aside}")
    say(choice.note)
    if is_finished(choice.folder):
        say(f"nothing left to do; its result is in {choice.folder / FINISHED_FILE}; --fresh starts over")
        return False
    return True


def say(line: str) -> None:
    """A line on stderr; of several processes the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"vlmtrain: {line}\n")


def open_folder(choice: Choice, config: dict[str, Any]) -> None:
    """Makes the folder, writes its configuration and lets runs/latest point to it.

    The configuration comes first: whoever is killed before it leaves a folder that the same command takes for empty.
    """
    choice.folder.mkdir(parents=True, exist_ok=True)
    write_config(config, choice.folder)
    (choice.folder / "logs").mkdir(exist_ok=True)
    RUNS.mkdir(exist_ok=True)
    target = os.path.relpath(choice.folder.resolve(), RUNS.resolve())
    staged = RUNS / f".latest.{os.getpid()}"
    staged.unlink(missing_ok=True)
    staged.symlink_to(target)
    os.replace(staged, RUNS / "latest")


def move_aside(folder: Path) -> Path:
    """Makes room for a fresh start without deleting anything; gives the new place of what was there."""
    aside = folder.with_name(f"{folder.name}.before-{time.strftime('%Y-%m-%d_%H-%M-%S')}")
    folder.rename(aside)
    return aside


def _chosen_by_user(folder: Path, config: dict[str, Any], start_fresh: bool) -> Choice:
    if start_fresh or not folder.exists():
        return Choice(folder, f"new run in {folder}")
    if not folder.is_dir():
        raise ValueError(f"run_dir={folder} is a file: name a folder")
    if not (folder / CONFIG_FILE).is_file():
        others = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        if others:
            raise ValueError(f"run_dir={folder} holds {others[0]} but no run: name a new or empty folder")
        return Choice(folder, f"new run in {folder}")
    differences = find_differences(read_config(folder), config)
    if differences:
        shown = "".join(f"\n  {line}" for line in differences[:8])
        more = f"\n  and {len(differences) - 8} more" if len(differences) > 8 else ""
        raise ValueError(
            f"{folder} holds a run of another configuration (its value -> yours):{shown}{more}\n"
            "Type the same command to resume it, run_dir=ANOTHER_FOLDER for a new run, or --fresh to start over here "
            "(the old run is moved aside)."
        )
    state = "is finished" if is_finished(folder) else "is not finished"
    return Choice(folder, f"resuming {folder} (the run {state})")
