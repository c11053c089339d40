"""conf/sweep/NAME.yaml: one experiment run in several settings, which of them, and how they are made comparable."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import yaml

from vlmtrain.config.annotations import fits
from vlmtrain.config.choices import Groups
from vlmtrain.config.faults import offer
from vlmtrain.config.location import find_groups, search_folders

GROUP = "sweep"
ALL = "all"  # every option of a group, as conf/ has them


@dataclass(frozen=True)
class SweepFile:
    """The keys of the file."""

    common: list[str]  # overrides that hold for all
    vary: dict[str, Any]  # key or group -> its values, or ALL; several of them: every combination
    as_much_as: str | None = None  # the setting whose arithmetic all others get; None: the steps of the experiment
    adjust: dict[str, list[str]] | None = None  # setting -> further overrides for it alone


@dataclass(frozen=True)
class Sweep:
    """Setting -> the overrides of its run."""

    settings: dict[str, list[str]]
    as_much_as: str | None


def read_sweep(name: str, config_dirs: list[str] | None = None) -> Sweep:
    """ValueError where there is no such file or it does not say what it should."""
    groups = find_groups(search_folders(config_dirs or []))
    files = groups.get(GROUP, {})
    if name not in files:
        raise ValueError(f"sweep {name}: there is no such file; {offer(name, files, 'Sweeps')}.")
    text = yaml.safe_load(files[name].read_text(encoding="utf-8"))
    return expand(read_keys(text, name), groups)


def expand(file: SweepFile, groups: Groups) -> Sweep:
    """Every combination of what varies."""
    values = [_values(key, chosen, groups) for key, chosen in file.vary.items()]
    adjust = file.adjust or {}
    settings = {}
    for combination in product(*values):
        setting = ", ".join(combination)
        varied = [f"{key}={value}" for key, value in zip(file.vary, combination, strict=True)]
        settings[setting] = [*file.common, *varied, *adjust.get(setting, [])]
    for named in [*adjust, *([file.as_much_as] if file.as_much_as else [])]:
        if named not in settings:
            raise ValueError(f"{named!r} is no setting of the sweep; {offer(named, settings, 'Settings')}.")
    return Sweep(settings, file.as_much_as)


def _values(key: str, chosen: Any, groups: Groups) -> list[str]:
    if chosen == ALL:
        if key not in groups:
            raise ValueError(f"vary {key}: {ALL} wants a group; {offer(key, groups, 'Groups')}.")
        return list(groups[key])
    if not isinstance(chosen, list) or not chosen:
        raise ValueError(f"vary {key}: got {chosen!r}; give a list of values, or `{ALL}` for every option of a group.")
    return [str(value) for value in chosen]


def read_keys(text: Any, name: str) -> SweepFile:
    known = {entry.name: entry for entry in fields(SweepFile)}
    keys = text if isinstance(text, Mapping) else {}
    unknown = [str(key) for key in keys if key not in known]
    if unknown:
        raise ValueError(f"sweep {name}: there is no key {unknown[0]!r}; {offer(unknown[0], known, 'Keys')}.")
    wrong = [key for key, entry in known.items() if not fits(keys.get(key), str(entry.type))]
    if wrong:
        raise ValueError(f"sweep {name}: {wrong[0]} is {keys.get(wrong[0])!r}; it wants {known[wrong[0]].type}.")
    return SweepFile(**keys)
