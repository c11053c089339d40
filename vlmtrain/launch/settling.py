"""`distributed=auto`: which engine it is, settled once before processes start, and the same when the run is resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vlmtrain.config.stored import CONFIG_FILE, read_config
from vlmtrain.launch.run_folder import say

SETTLED = ("engine", "reason")
SAME = ("num_processes", "memory_gigabytes")  # what was chosen for others of these is chosen anew


def is_open(distributed: dict[str, Any]) -> bool:
    """Whether an engine has to be chosen yet."""
    return distributed.get("engine") is None and bool(distributed.get("first_that_fits"))


def settle(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`config` with an engine where there is one to be chosen, and the reason; says so.

    A run in `folder` keeps its own.  ValueError with numbers where none fits.
    """
    if not is_open(config["distributed"]):
        return config
    chosen = _find_earlier(config["distributed"], folder) or _ask(config)
    say(f"distributed=auto: {chosen['reason']}")
    return {**config, "distributed": {**config["distributed"], **chosen}}


def _find_earlier(distributed: dict[str, Any], folder: Path) -> dict[str, Any] | None:
    if not (folder / CONFIG_FILE).is_file():
        return None
    earlier = read_config(folder)["distributed"]
    if earlier.get("reason") is None or any(earlier.get(key) != distributed[key] for key in SAME):
        return None
    return {key: earlier[key] for key in SETTLED}


def _ask(config: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: whoever asks a GPU for its memory takes some of it until he ends."""
    command = [sys.executable, "-m", "vlmtrain.launch.fitting"]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    asked = subprocess.run(
        command, input=json.dumps(config), env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if asked.returncode:
        raise ValueError(
            f"distributed=auto could not be settled: {' '.join(command)} failed; choose an engine yourself"
        )
    answer: dict[str, Any] = json.loads(asked.stdout)
    if "refusal" in answer:
        raise ValueError(answer["refusal"])
    return answer
