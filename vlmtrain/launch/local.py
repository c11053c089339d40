"""Starts a run on this machine, or joins one as a rank when torchrun has started us."""

import os
import time
from pathlib import Path
from typing import Any

from vlmtrain.config.stored import CONFIG_FILE, find_differences, read_config
from vlmtrain.launch.processes import run_processes
from vlmtrain.launch.rank import run_rank, watch_launcher
from vlmtrain.launch.run_folder import choose_folder, has_work, open_folder
from vlmtrain.launch.settling import settle
from vlmtrain.training.run_lock import RunLock

PATIENCE_SECONDS = 120.0


def launch(config: dict[str, Any], start_fresh: bool = False, with_traceback: bool = False) -> int:
    """Trains what the resolved `config` describes; gives the exit code."""
    if world_size() > 1:
        return _join(config, start_fresh, with_traceback)
    watch_launcher()  # a trial ends with its sweep
    choice = choose_folder(config, start_fresh)
    if not has_work(choice, config, start_fresh):
        return 0
    with RunLock(choice.folder):
        open_folder(choice, settle(config, choice.folder))
        processes = config["distributed"]["num_processes"]
        if processes == 1:
            return run_rank(choice.folder, with_traceback)
        return run_processes(processes, choice.folder, with_traceback)


def world_size() -> int:
    """How many processes torchrun (or SLURM) has started; 1 when it was the user."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def _join(config: dict[str, Any], start_fresh: bool, with_traceback: bool) -> int:
    """Rank 0 makes the folder; the others wait for it, for all of them must train the same thing."""
    if config["run_dir"] is None:
        raise ValueError("started by torchrun, each process would choose a folder of its own: add run_dir=FOLDER")
    if start_fresh:
        raise ValueError("--fresh does not go together with torchrun: name a new run_dir=FOLDER instead")
    if os.environ["RANK"] == "0":
        choice = choose_folder(config, start_fresh)
        with RunLock(choice.folder):
            open_folder(choice, settle(config, choice.folder))
            return run_rank(choice.folder, with_traceback)
    folder = Path(config["run_dir"]).expanduser()
    _wait_for(folder, config)
    return run_rank(folder, with_traceback)


def _wait_for(folder: Path, config: dict[str, Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (folder / CONFIG_FILE).is_file():
        if time.monotonic() > deadline:
            raise ValueError(f"{folder / CONFIG_FILE} has not come from rank 0: do all machines see this folder?")
        time.sleep(0.2)
    differences = find_differences(read_config(folder), config)
    if differences:
        raise ValueError(f"{folder} holds another configuration than this rank was given: {differences[0]}")
