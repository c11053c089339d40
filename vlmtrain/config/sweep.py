"""conf/sweep/NAME.yaml: one experiment run in several settings, which of them, and how they are made comparable."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any

import yaml

from vlmtrain.config.annotations import fits
from vlmtrain.config.choices import Groups
from vlmtrain.config.faults import offer
from vlmtrain.config.location import find_groups, search_folders
from vlmtrain.config.sweep_values import SEPARATOR, Range, name_value, read_values

GROUP = "sweep"
LOWEST, HIGHEST = "lowest", "highest"


@dataclass(frozen=True)
class SweepFile:
    """The keys of the file."""

    common: list[str]  # overrides that hold for all
    vary: dict[str, Any] | None = None  # key or group -> its values, or `all`; several of them: every combination
    settings: dict[str, list[str]] | None = None  # instead of `vary`: name -> overrides
    as_much_as: str | None = None  # the setting whose arithmetic all others get; None: the steps of the experiment
    adjust: dict[str, list[str]] | None = None  # setting -> further overrides for it alone
    metric: str | None = None  # <stage>/<metric> by which trials are ordered, searched and pruned
    direction: str | None = None  # which is best, lowest or highest; None: the lowest loss, the highest of all else
    search: dict[str, Any] | None = None  # _target_ node that proposes values of `vary`; None: every combination
    prune: dict[str, Any] | None = None  # _target_ node that says which trial is hopeless; None: all go to their end


@dataclass(frozen=True)
class Sweep:
    """Setting -> the overrides of its run; with a `search` the settings are proposed one after the other instead."""

    settings: dict[str, list[str]]
    as_much_as: str | None = None
    metric: str | None = None
    direction: str | None = None
    prune: dict[str, Any] | None = None
    search: dict[str, Any] | None = None
    common: list[str] = field(default_factory=list)
    space: dict[str, list[str] | Range] = field(default_factory=dict)


def read_sweep(name: str, config_dirs: list[str] | None = None) -> Sweep:
    """ValueError where there is no such file or it does not say what it should."""
    return expand(*read_file(name, config_dirs))


def read_file(name: str, config_dirs: list[str] | None = None) -> tuple[SweepFile, Groups]:
    """The file as it stands, and the groups that its keys may name."""
    groups = find_groups(search_folders(config_dirs or []))
    files = groups.get(GROUP, {})
    if name not in files:
        raise ValueError(f"sweep {name}: there is no such file; {offer(name, files, 'Sweeps')}.")
    return read_keys(yaml.safe_load(files[name].read_text(encoding="utf-8")), name), groups


def expand(file: SweepFile, groups: Groups) -> Sweep:
    """Every combination of what varies, the named settings, or the space that is searched."""
    if (file.vary is None) == (file.settings is None):
        raise ValueError("a sweep has either `vary` (every combination of values) or `settings` (a list of them).")
    space = {key: read_values(key, chosen, groups) for key, chosen in (file.vary or {}).items()}
    shared = (file.metric, file.direction, file.prune)
    if file.search is not None:
        _refuse_with_search(file)
        return Sweep({}, None, *shared, search=file.search, common=file.common, space=space)
    settings = dict(file.settings or {})
    settings = {name: [*file.common, *overrides] for name, overrides in settings.items()}
    settings |= _combine(file.common, space, groups) if file.vary is not None else {}
    adjust = file.adjust or {}
    for named in [*adjust, *([file.as_much_as] if file.as_much_as else [])]:
        if named not in settings:
            raise ValueError(f"{named!r} is no setting of the sweep; {offer(named, settings, 'Settings')}.")
    settings = {name: [*overrides, *adjust.get(name, [])] for name, overrides in settings.items()}
    return Sweep(settings, file.as_much_as, *shared, common=file.common, space=space)


def _combine(common: list[str], space: Mapping[str, list[str] | Range], groups: Groups) -> dict[str, list[str]]:
    """Name -> overrides of every combination."""
    lists = []
    for key, values in space.items():
        if isinstance(values, Range):
            raise ValueError(f"vary {key}: a range has no combinations; give a list of values, or a `search`.")
        lists.append(values)
    settings: dict[str, list[str]] = {}
    for combination in product(*lists):
        varied = list(zip(space, combination, strict=True))
        name = SEPARATOR.join(name_value(key, value, key in groups) for key, value in varied)
        if name in settings:
            raise ValueError(f"two settings of the sweep are called {name}: give each value once.")
        settings[name] = [*common, *(f"{key}={value}" for key, value in varied)]
    return settings


def _refuse_with_search(file: SweepFile) -> None:
    for key in ("settings", "as_much_as", "adjust"):
        if getattr(file, key) is not None:
            raise ValueError(f"{key} does not go together with `search`, which proposes the settings itself.")
    if file.metric is None:
        raise ValueError("a search wants `metric`, as language/test/loss: what should become better?")


def read_keys(text: Any, name: str) -> SweepFile:
    """The keys of a file.  ValueError names the first that is unknown or of another type."""
    known = {entry.name: entry for entry in fields(SweepFile)}
    keys = text if isinstance(text, Mapping) else {}
    unknown = [str(key) for key in keys if key not in known]
    if unknown:
        raise ValueError(f"sweep {name}: there is no key {unknown[0]!r}; {offer(unknown[0], known, 'Keys')}.")
    wrong = [key for key, entry in known.items() if not fits(keys.get(key), str(entry.type))]
    if wrong:
        raise ValueError(f"sweep {name}: {wrong[0]} is {keys.get(wrong[0])!r}; it wants {known[wrong[0]].type}.")
    if keys.get("direction") not in (None, LOWEST, HIGHEST):
        raise ValueError(f"sweep {name}: direction is {keys['direction']!r}; it wants {LOWEST} or {HIGHEST}.")
    if keys.get("prune") is not None and keys.get("metric") is None:
        raise ValueError(f"sweep {name}: prune wants `metric`, as language/test/loss: by what is a trial hopeless?")
    return SweepFile(**keys)
