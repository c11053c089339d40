"""Values that are each right but do not go together."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmtrain.config.embedded import resolve_source
from vlmtrain.config.faults import Fault, closest, offer
from vlmtrain.config.schema import DistributedConfig, LauncherConfig, make_defaults

WITH_ANY_LAUNCHER = ("kind", "local_cache", "cached")
DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|percent|%)?\s*")


def check_across(config: dict[str, Any]) -> Iterator[Fault]:
    """Faults between keys of a configuration whose single values are right."""
    stages = config["stages"]
    if not stages:
        yield Fault("experiment", "nothing to train", "choose one: experiment=blip2_opt")
    processes = config["distributed"]["num_processes"]
    if processes > 1 and not (config["distributed"]["engine"] or config["distributed"]["first_that_fits"]):
        yield Fault("distributed", f"num_processes is {processes}, and there is no engine", "add distributed=ddp")
    yield from _check_launcher(config["launcher"], processes)
    phases = make_defaults(DistributedConfig)["hang_limits"]
    for name in config["distributed"]["hang_limits"].keys() - phases:
        yield Fault(f"distributed.hang_limits.{name}", "there is no such phase", offer(name, phases, "Phases"))
    for name, stage in stages.items():
        yield from _check_batch(name, stage["trainer"], processes)
        max_steps = stage["trainer"]["max_steps"]
        if max_steps:  # else nothing trains, whatever these say
            yield from _check_rates(name, stage["optimizer"], max_steps)
            yield from _check_trainable(name, stage["trainable"], max_steps)
        yield from _check_start(name, stage["start_from"] or {}, list(stages), config)
    if config["init_from"] is not None:
        yield from _check_earlier_run(config["init_from"])


def _check_earlier_run(folder: str) -> Iterator[Fault]:
    try:
        if not (Path(resolve_source(folder)) / "config.yaml").is_file():
            yield Fault("init_from", f"{folder!r} holds no run", "give the folder that holds its config.yaml")
    except ValueError as error:
        yield Fault("init_from", str(error))


def _check_launcher(launcher: dict[str, Any], processes: int) -> Iterator[Fault]:
    if launcher["kind"] == "slurm":
        nodes, tasks = launcher["nodes"], launcher["tasks_per_node"]
        if nodes * tasks != processes:
            told = f"{processes}, and {nodes} nodes with {tasks} tasks each are {nodes * tasks} processes"
            yield Fault("distributed.num_processes", told, "leave it out: launcher.nodes and tasks_per_node decide")
        return
    defaults = make_defaults(LauncherConfig)
    for name, value in launcher.items():
        if name not in WITH_ANY_LAUNCHER and value != defaults[name]:
            yield Fault(f"launcher.{name}", f"{value!r} means nothing to launcher=local", "add launcher=slurm")


def _check_batch(name: str, trainer: dict[str, Any], processes: int) -> Iterator[Fault]:
    batch, accumulate = trainer["batch_size"], trainer["accumulate"]
    if batch % (accumulate * processes):
        fitting = accumulate * processes * max(1, round(batch / (accumulate * processes)))
        yield Fault(
            f"stages.{name}.trainer.batch_size",
            f"{batch} samples cannot be cut into {accumulate} micro-batches on each of {processes} processes",
            f"trainer.batch_size={fitting} can",
        )


def _check_rates(name: str, optimizer: dict[str, Any], max_steps: int) -> Iterator[Fault]:
    path = f"stages.{name}.optimizer"
    lr, min_lr = optimizer["lr"], optimizer["min_lr"]
    if min_lr > lr:
        yield Fault(f"{path}.min_lr", f"{min_lr:g} is above lr, {lr:g}", f"type optimizer.min_lr={lr / 10:g}")
    if len(optimizer["betas"]) != 2 or not all(0 <= beta < 1 for beta in optimizer["betas"]):
        yield Fault(f"{path}.betas", f"got {optimizer['betas']}", "write two numbers below 1: [0.9,0.98]")
    found = DURATION.fullmatch(str(optimizer["warmup"]))
    if found is None:
        yield Fault(f"{path}.warmup", f"got {optimizer['warmup']!r}", "write 2000, '2000 steps' or '3 percent'")
        return
    number, limit, unit = float(found[1]), max_steps, "steps"
    if found[2] in ("percent", "%"):
        limit, unit = 100, "percent"
    if number > limit:
        remedy = "type optimizer.warmup='3 percent' or more trainer.max_steps"
        yield Fault(f"{path}.warmup", f"{number:g} {unit} is more than the stage's {limit} {unit}", remedy)


def _check_trainable(name: str, trainable: dict[str, Any], max_steps: int) -> Iterator[Fault]:
    for part, rate in trainable.items():
        path = f"stages.{name}.trainable.{part}"
        if isinstance(rate, dict):
            yield from _check_later(path, rate, max_steps)
        elif rate is not None and not rate > 0:
            remedy = "give a multiple of optimizer.lr above 0, or null to freeze it"
            yield Fault(path, f"got {rate}", remedy)
    if all(rate is None or isinstance(rate, dict) for rate in trainable.values()):
        when = " at first" if any(trainable.values()) else ""
        remedy = "give one a multiple of optimizer.lr (adaptation: what model/adaptation adds)"
        yield Fault(f"stages.{name}.trainable", f"every part is frozen{when}", remedy)


def _check_later(path: str, rate: dict[str, Any], max_steps: int) -> Iterator[Fault]:
    """A part that trains from some step on."""
    if set(rate) != {"from_step", "rate"}:
        yield Fault(path, f"got {rate}", "write {from_step: STEP, rate: MULTIPLE}")
        return
    if not rate["rate"] > 0:
        yield Fault(path, f"got rate {rate['rate']}", "give a multiple of optimizer.lr above 0")
    if not isinstance(rate["from_step"], int) or not 0 < rate["from_step"] < max_steps:
        remedy = f"give a whole number from 1 to {max_steps - 1}, a step of this stage"
        yield Fault(path, f"got from_step {rate['from_step']}", remedy)


def _check_start(name: str, start: dict[str, Any], stages: list[str], config: dict[str, Any]) -> Iterator[Fault]:
    earlier = stages[: stages.index(name)]
    for part, source in start.items():
        if source["stage"] in earlier and not config["stages"][source["stage"]]["trainer"]["max_steps"]:
            remedy = f"name a stage that trains, or type stages.{name}.start_from=null to start from nothing"
            told = f"stage {source['stage']!r} has max_steps 0: it trains nothing and leaves no weights"
            yield Fault(f"stages.{name}.start_from.{part}", told, remedy)
            continue
        if source["stage"] in earlier or config["init_from"] is not None:
            continue
        path = f"stages.{name}.start_from.{part}"
        if config["run_stages"] is not None and source["stage"] not in stages:
            nothing = f"stages.{name}.start_from=null to start from nothing"
            remedy = (
                f"type init_from=RUN_FOLDER of a run that trained it, stages=[{source['stage']},{name}], or {nothing}"
            )
            yield Fault(path, f"stage {source['stage']!r} is not among the stages that run", remedy)
        else:
            near = closest(source["stage"], earlier)
            remedy = f"did you mean {near}?" if near else f"earlier stages: {', '.join(earlier) or 'none'}"
            yield Fault(path, f"there is no earlier stage {source['stage']!r}", remedy)
