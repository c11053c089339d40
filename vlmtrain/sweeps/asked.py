"""What a command line asks of a sweep: its settings, its folder, and the resolved configuration of a trial."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vlmtrain.config.check import check
from vlmtrain.config.choices import Groups
from vlmtrain.config.compose import compose
from vlmtrain.config.faults import ConfigError, Fault
from vlmtrain.config.location import find_groups, search_folders
from vlmtrain.config.overrides import Typed
from vlmtrain.config.parts import check_parts
from vlmtrain.config.stored import hash_config
from vlmtrain.config.sweep import GROUP, Sweep, SweepFile, expand, read_file
from vlmtrain.config.sweep_values import Range, split_typed
from vlmtrain.launch.sweep_folder import SWEEP_FILE, SWEEPS, SweepFolder

WITHOUT_FILE = "multirun"


@dataclass(frozen=True)
class Asked:
    """A sweep as it was asked for."""

    name: str
    sweep: Sweep
    folder: Path
    config_dirs: list[str]

    @property
    def example(self) -> list[str]:
        """The overrides of one of its trials, for what all of them have in common."""
        return next(iter(self.sweep.settings.values())) if self.sweep.settings else _corners(self.sweep)[0]


def read_typed(typed: Typed) -> Asked:
    """`+sweep=NAME`, further overrides for all trials, and keys with several values in place of the file's."""
    name, run_dir, rest = "", None, []
    for override in typed.overrides:
        key, _, value = override.partition("=")
        name = value if key == GROUP else name
        run_dir = value.strip("'\"") if key == "run_dir" else run_dir
        rest += [] if key in (GROUP, "run_dir") else [override]
    fixed, varied = split_typed(rest)
    if name:
        file, groups = read_file(name, typed.config_dirs)
        file = _with_typed(file, fixed, varied, groups)
    else:
        file, groups = SweepFile(fixed, varied), find_groups(search_folders(typed.config_dirs))
        if not varied:
            remedy = "name one, vlmtrain sweep +sweep=connectors, or type several values, vlmtrain -m optimizer.lr=a,b"
            raise ConfigError([Fault(GROUP, "nothing varies", f"{remedy}. Sweeps: {', '.join(groups[GROUP])}")])
    sweep = replace(expand(file, groups), metric=typed.options.get("by", file.metric))
    digest = _hash(sweep, _compose_all(sweep, typed.config_dirs))
    folder = Path(run_dir).expanduser() if run_dir else SWEEPS / f"{name or WITHOUT_FILE}-{digest}"
    return Asked(name or WITHOUT_FILE, sweep, folder, typed.config_dirs)


def write_asked(asked: Asked, sweep: Sweep, num_trials: int) -> SweepFolder:
    """Keeps it in the sweep's folder, with the steps that were settled; ValueError where another search lies there."""
    folder = SweepFolder(asked.folder)
    kept = {"name": asked.name, "num_trials": num_trials, "config_dirs": asked.config_dirs, "sweep": asdict(sweep)}
    if (asked.folder / SWEEP_FILE).is_file() and sweep.search is not None:
        earlier = folder.read()["sweep"]
        if earlier["space"] != json.loads(json.dumps(kept["sweep"]))["space"]:
            raise ValueError(f"{asked.folder} searched another space; give another folder with run_dir=")
    folder.write(kept)
    return folder


def read_asked(folder: Path) -> Asked:
    """What `write_asked` kept."""
    kept = SweepFolder(folder).read()
    plain = kept["sweep"]
    space = {key: Range(**value) if isinstance(value, dict) else value for key, value in plain["space"].items()}
    return Asked(kept["name"], Sweep(**{**plain, "space": space}), folder, kept["config_dirs"])


def compose_trial(overrides: list[str], config_dirs: list[str], folder: Path | None = None) -> dict[str, Any]:
    """The configuration of one trial, found right."""
    composed = compose(overrides, config_dirs)
    check(composed)
    if folder is not None:
        composed.config["run_dir"] = str(folder)
    return composed.config


def _with_typed(file: SweepFile, fixed: list[str], varied: Mapping[str, Any], groups: Groups) -> SweepFile:
    """What is typed wins; one value for a key that varies stands for its list."""
    of_file = dict(file.vary or {})
    single = {key: [value] for key, _, value in (override.partition("=") for override in fixed) if key in of_file}
    common = [*file.common, *(override for override in fixed if override.partition("=")[0] not in single)]
    if file.vary is None:
        if varied:
            raise ValueError(f"{next(iter(varied))} has several values, and this sweep is a list of settings.")
        return replace(file, common=common)
    typed = replace(file, common=common, vary={**of_file, **varied, **single})
    if file.adjust is None:
        return typed
    left = expand(replace(typed, adjust=None, as_much_as=None), groups).settings
    return replace(typed, adjust={name: more for name, more in file.adjust.items() if name in left})


def _compose_all(sweep: Sweep, config_dirs: list[str]) -> dict[str, dict[str, Any]]:
    """Every trial composes, or the corners of what is searched do; so that nothing ends on a typing error at night."""
    for part, node in (("search", sweep.search), ("prune", sweep.prune)):
        faults = list(check_parts(node, part)) if node is not None else []
        if node is not None and "_target_" not in node:
            faults = [Fault(part, f"got {node!r}, which has no _target_", "name a class: _target_: module.Class")]
        if faults:
            raise ConfigError(faults)
    trials = sweep.settings or {str(place): typed for place, typed in enumerate(_corners(sweep))}
    configs = {name: compose_trial(overrides, config_dirs) for name, overrides in trials.items()}
    if sweep.metric is not None:
        for config in configs.values():
            _check_metric(sweep, config)
    return configs


def _check_metric(sweep: Sweep, config: Mapping[str, Any]) -> None:
    assert sweep.metric is not None
    stage = sweep.metric.partition("/")[0]
    if stage not in config["stages"]:
        stages = ", ".join(config["stages"])
        raise ValueError(f"metric {sweep.metric}: there is no stage {stage}; write STAGE/METRIC. Stages: {stages}.")
    if sweep.prune is not None and not config["stages"][stage]["trainer"]["evaluate_every"]:
        raise ValueError(
            f"prune looks at evaluations during training, and stage {stage} has none: evaluate_every is 0."
        )


def _corners(sweep: Sweep) -> list[list[str]]:
    ends = {key: [v.low, v.high] if isinstance(v, Range) else [v[0], v[-1]] for key, v in sweep.space.items()}
    return [[*sweep.common, *(f"{key}={values[place]}" for key, values in ends.items())] for place in (0, 1)]


def _hash(sweep: Sweep, configs: Mapping[str, dict[str, Any]]) -> str:
    """Eight hex digits that two sweeps share if they would train the same, whoever starts them."""
    trials = {name: hash_config(config) for name, config in configs.items()}
    told = [trials, sweep.as_much_as, sweep.prune, sweep.search]
    told += [sweep.metric] if sweep.prune or sweep.search else []  # otherwise it only orders what comes out
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
