"""The configuration in a run folder: written once by the launcher, read by every rank."""

import hashlib
import json
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

CONFIG_FILE = "config.yaml"
# What may differ between a run and its resumption: nothing of it changes what is learned.
HARMLESS_IN_TRAINER = (
    "num_workers",
    "log_every",
    "save_every",
    "save_asynchronously",
    "save_in_parts",
    "keep_checkpoints",
    "log_samples",
    "threads",
    "accumulate",
)
HARMLESS = ("run_dir", "launcher*", "distributed*", "tracker*", *(f"*trainer.{key}" for key in HARMLESS_IN_TRAINER))


def write_config(config: dict[str, Any], folder: Path) -> None:
    """Writes `config.yaml` whole or not at all."""
    staged = folder / f".{CONFIG_FILE}.{os.getpid()}"
    with staged.open("w", encoding="utf-8") as file:
        yaml.safe_dump(config, file, sort_keys=False, allow_unicode=True, width=120)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, folder / CONFIG_FILE)


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved configuration of a run.  ValueError where the folder holds none."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise ValueError(f"{folder} holds no run: there is no {CONFIG_FILE} in it")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def hash_config(config: dict[str, Any]) -> str:
    """Eight hex digits that two configurations share exactly if one may resume the other."""
    return hashlib.sha256(json.dumps(_telling(config), sort_keys=True).encode()).hexdigest()[:8]


def find_differences(stored: dict[str, Any], config: dict[str, Any]) -> list[str]:
    """'key: old -> new' for every key that keeps `config` from resuming the run that stored the other."""
    old, new = _telling(stored), _telling(config)
    absent = "(absent)"
    return [
        f"{key}: {old.get(key, absent)} -> {new.get(key, absent)}"
        for key in dict.fromkeys([*old, *new])
        if key not in old or key not in new or old[key] != new[key]
    ]


def _telling(config: dict[str, Any]) -> dict[str, Any]:
    flat = flatten(config)
    return {key: value for key, value in flat.items() if tells_apart(key)}


def tells_apart(key: str) -> bool:
    """Whether two runs that differ in this key learn otherwise."""
    return not any(fnmatchcase(key, pattern) for pattern in HARMLESS)


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value; lists and empty sections are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
