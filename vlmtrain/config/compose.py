"""Command line -> one resolved configuration.  Hydra composes, exactly once; ranks read the file that comes of it."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vlmtrain.config.choices import Groups
from vlmtrain.config.faults import ConfigError, Fault, offer
from vlmtrain.config.location import ROOT_CONFIG, find_groups, find_line, find_package, search_folders
from vlmtrain.config.schema import DistributedConfig, LauncherConfig, OptimizerConfig, TrainerConfig, make_defaults
from vlmtrain.config.secrets import is_secret
from vlmtrain.config.typed_overrides import sort_overrides

DEFAULT_SCALE = "tiny"
SIZES = "sizes"  # what scales say about parts that not every run has; read by conf/model, no part of the result
SHARED_SECTIONS = {"trainer": TrainerConfig, "optimizer": OptimizerConfig}  # every stage has its own copy


@dataclass(frozen=True)
class Composed:
    """A resolved configuration and where it came from, for error messages."""

    config: dict[str, Any]
    groups: Groups
    typed: list[str]  # the keys of the command line
    faults: list[Fault] = field(default_factory=list)
    files: dict[Path, str] = field(default_factory=dict)  # chosen file -> where its keys go; root first

    def place(self, path: str) -> str:
        """'file:line' that sets `path`; '' when it was typed."""
        return "" if path in (*self.typed, "stages") else find_line(self.files, path)


def compose(overrides: list[str], config_dirs: list[str] | None = None) -> Composed:
    """Composes and resolves.  Wrong choices and unresolvable values are collected in `faults`, not raised."""
    folders = search_folders(config_dirs or [])
    groups = find_groups(folders)
    faults, choices, values = sort_overrides(overrides, groups)
    name, scale = choices.pop("experiment", "null"), choices.pop("scale", DEFAULT_SCALE)
    arguments = [f"{group}={option}" for group, option in choices.items()]
    arguments += [f"scale={_scale_file(name, scale, groups)}", *([f"experiment={name}"] if name != "null" else [])]
    arguments += [f"++{value}" if not value.startswith("~") else value for value in values]
    if folders[1:]:
        arguments.append(f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders[1:])}]")
    tree, files = _compose_with_hydra(folders[0], arguments, groups)
    tree.scale = scale
    tree.experiment = None if name == "null" else name
    typed = [value.split("=", 1)[0] for value in values]
    _complete(tree, typed)
    faults += [Fault(key, "is the scale's", "type where it is used") for key in typed if key.split(".")[0] == SIZES]
    faults += _drop_unselected_stages(tree, typed)
    config, unresolved = resolve(tree)
    config.pop(SIZES, None)
    return Composed(config, groups, [*typed, *(fault.path for fault in faults)], faults + unresolved, files)


def resolve(tree: DictConfig) -> tuple[dict[str, Any], list[Fault]]:
    """Plain values for every reference except secrets; one fault for each that leads nowhere."""
    for path, value in _leaves(OmegaConf.to_container(tree, resolve=False), ""):
        if is_secret(path, value):
            OmegaConf.update(tree, path, value.replace("${", "\\${"))
    faults: list[Fault] = []
    while True:
        try:
            return OmegaConf.to_container(tree, resolve=True), faults  # type: ignore[return-value]
        except OmegaConfBaseException as error:
            path = str(error.full_key)
            reason = str(error).splitlines()[0]
            faults.append(Fault(path, f"cannot be resolved: {reason}", "give it a value or choose another option"))
            if len(faults) > 20:
                raise ConfigError(faults) from error
            OmegaConf.update(tree, path, None)


def _scale_file(name: str, scale: str, groups: Groups) -> str:
    """What a scale means for this experiment, if it has a file for it; else what it means for all."""
    return f"{name}/{scale}" if scale in groups.get(f"scale/{name}", {}) else scale


def _compose_with_hydra(folder: Path, arguments: list[str], groups: Groups) -> tuple[DictConfig, dict[Path, str]]:
    try:
        with initialize_config_dir(str(folder), version_base="1.3", job_name="vlmtrain"):
            tree = hydra_compose(ROOT_CONFIG, arguments, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError([_translate(error, groups)]) from error
    chosen = OmegaConf.to_container(tree.hydra.runtime.choices)
    files = {folder / f"{ROOT_CONFIG}.yaml": ""}
    for group, option in chosen.items():  # type: ignore[union-attr]
        *inner, stem = str(option).split("/")
        file = groups.get("/".join([str(group), *inner]), {}).get(stem)
        files.update({file: find_package(file, str(group))} if file else {})
    OmegaConf.set_struct(tree, False)  # config.check knows better what may stand where
    del tree["hydra"]
    return tree, files


def _translate(error: Exception, groups: Groups) -> Fault:
    """What Hydra says of our files, without its own inner life."""
    missing = re.search(r"Could not find '([^']+)/([^'/]+)'", str(error))
    if missing is None:
        return Fault("", " ".join(str(error).split("Config search path")[0].split()))
    group, option = missing[1], missing[2]
    naming = [file for options in groups.values() for file in options.values() if option in file.read_text("utf-8")]
    place = naming[-1].name if naming else ""
    return Fault(group, f"there is no option {option!r}", offer(option, groups.get(group, {}), "Options"), place)


def _complete(tree: DictConfig, typed: list[str]) -> None:
    """Fills in defaults; gives each stage its own whole trainer and optimizer section; typed values win over files."""
    for name, section in {**SHARED_SECTIONS, "distributed": DistributedConfig, "launcher": LauncherConfig}.items():
        tree[name] = OmegaConf.merge(make_defaults(section), tree.get(name) or {})
    if tree.launcher.kind == "slurm" and "distributed.num_processes" not in typed:
        tree.distributed.num_processes = tree.launcher.nodes * tree.launcher.tasks_per_node
    for key, value in (
        ("seed", 0),
        ("shuffle_images", False),
        ("run_dir", None),
        ("init_from", None),
        ("run_stages", None),
        ("tracker", {}),
    ):
        tree.setdefault(key, value)
    tree.stages = tree.get("stages") or {}
    for stage_name, stage in tree.stages.items():
        if not isinstance(stage, DictConfig):
            continue
        for name in SHARED_SECTIONS:
            merged = OmegaConf.merge(tree[name], stage.get(name) or {})
            for key in typed:
                section_name, _, rest = key.partition(".")
                if section_name == name and rest and f"stages.{stage_name}.{key}" not in typed:
                    OmegaConf.update(merged, rest, OmegaConf.select(tree, key))
            stage[name] = merged
        stage.setdefault("data", None)
        stage.setdefault("start_from", {})
        stage.setdefault("evaluation", {})


def _drop_unselected_stages(tree: DictConfig, typed: list[str]) -> list[Fault]:
    """Leaves the stages that run.  The others need not even make sense with the chosen parts."""
    wanted = OmegaConf.select(tree, "run_stages")
    known = list(tree.stages)
    if wanted is None:
        return []
    names = [str(name) for name in wanted] if OmegaConf.is_list(wanted) else [str(wanted)]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        return [
            Fault("stages", f"there is no stage {', '.join(unknown)!r}", offer("".join(unknown[:1]), known, "Stages"))
        ]
    for name in [name for name in known if name not in names]:
        del tree.stages[name]
    idle = [
        key
        for key in typed
        if key.startswith("stages.") and key.split(".")[1] in known and key.split(".")[1] not in names
    ]
    return [Fault(key, f"stage {key.split('.')[1]} does not run", f"stages={wanted} leaves it out") for key in idle]


def _leaves(node: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(node, dict):
        return [leaf for key, value in node.items() for leaf in _leaves(value, f"{path}.{key}" if path else str(key))]
    if isinstance(node, list):
        return [leaf for index, value in enumerate(node) for leaf in _leaves(value, f"{path}[{index}]")]
    return [(path, node)]
