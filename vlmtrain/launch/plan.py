"""`vlmtrain plan`: what a run would take, from its configuration alone.  Models are built on the meta device."""

from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmtrain.config.build import build
from vlmtrain.config.location import conf_folder
from vlmtrain.launch.fitting import choose
from vlmtrain.launch.settling import is_open
from vlmtrain.report.start_summary import format_bytes, format_count
from vlmtrain.shapes import build_on_meta, estimate_stage
from vlmtrain.training.costs import MASTER_BYTES, MemoryCost, PartCost, list_part_costs
from vlmtrain.training.engines.base import Engine
from vlmtrain.training.engines.replicated import Replicated

# whole: what is put together of parts while a step runs; acts: activations, within a factor of two
COLUMNS = ("total", "weights", "grads", "Adam", "whole", "acts", "on CPU")


def plan(config: dict[str, Any]) -> int:
    """Prints parts, memory, steps, samples and disk of every stage."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"{config['experiment']} at scale {config['scale']}", style="bold"))
    disk, processes = 0, config["distributed"]["num_processes"]
    sharings = {name: engine.sharing(processes) for name, engine in _list_engines(config["distributed"]).items()}
    for name, stage in config["stages"].items():
        model = build_on_meta(stage)
        disk += _show_stage(console, name, stage, list_part_costs(model), processes)
        costs = {engine: estimate_stage(model, stage, processes, sharing) for engine, sharing in sharings.items()}
        console.print(_draw_memory(costs, processes))
    console.print(f"disk, all stages: about {format_bytes(disk)} of checkpoints")
    if is_open(config["distributed"]):
        console.print(f"distributed=auto: {_foretell(config)}")
    return 0


def _foretell(config: dict[str, Any]) -> str:
    try:
        return str(choose(config)["reason"])
    except ValueError as error:
        return str(error)


def _show_stage(console: Console, name: str, stage: dict[str, Any], parts: list[PartCost], processes: int) -> int:
    trainer = stage["trainer"]
    total, trainable = sum(part.parameters for part in parts), sum(part.trainable for part in parts)
    console.print()
    console.print(_draw_parts(name, stage, parts))
    console.print(f"  {format_count(total)} parameters, {format_count(trainable)} trainable ({trainable / total:.2%})")
    samples = trainer["max_steps"] * trainer["batch_size"]
    micro = trainer["batch_size"] // (trainer["accumulate"] * processes)
    cut = f"{processes} process(es) x {trainer['accumulate']} micro-batch(es) of {micro}"
    steps = f"{trainer['max_steps']:,} steps of {trainer['batch_size']:,} samples ({cut})"
    console.print(f"  {steps}: {format_count(samples)} samples")
    optimizer = stage["optimizer"]
    console.print(
        f"  lr {optimizer['lr']:g} -> {optimizer['min_lr']:g}, {optimizer['schedule']}, warm-up {optimizer['warmup']}, "
        f"weight decay {optimizer['weight_decay']:g}, betas {optimizer['betas']}"
    )
    checkpoint = 3 * MASTER_BYTES * trainable
    disk = checkpoint * (trainer["keep_checkpoints"] + 1)  # one more while the next is being written
    console.print(f"  a checkpoint is {format_bytes(checkpoint)}; up to {format_bytes(disk)} on disk")
    return disk


def _list_engines(distributed: dict[str, Any]) -> dict[str, Engine]:
    """What can share so many processes' memory, by the names of conf/distributed; the configured one first."""
    own, others = distributed["engine"], distributed["first_that_fits"] or {}
    nodes = {"as configured": own} if own else dict(others)
    if distributed["num_processes"] == 1 and not nodes:
        return {"one process": Replicated()}
    for file in sorted((conf_folder() / "distributed").glob("*.yaml")):
        node = yaml.safe_load(file.read_text(encoding="utf-8")).get("engine")
        if node and node not in nodes.values():
            nodes[file.stem] = node
    return {name: build(node) for name, node in nodes.items() if node}


def _draw_memory(costs: dict[str, MemoryCost], processes: int) -> Table:
    """A row for each engine, a column for each thing that takes memory."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(f"  memory, one of {processes}", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name, cost in costs.items():
        numbers = (cost.total, cost.weights, cost.gradients, cost.optimizer, cost.gathered, cost.activations)
        table.add_row(f"  {name}", *(format_bytes(number) if number else "" for number in (*numbers, cost.offloaded)))
    return table


def _draw_parts(name: str, stage: dict[str, Any], parts: list[PartCost]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column(f"stage {name}", no_wrap=True)
    table.add_column("source", overflow="fold", max_width=44)
    for column in ("parameters", "trainable"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("precision")
    starts = {path.split(".")[0]: origin["stage"] for path, origin in (stage["start_from"] or {}).items()}
    for part in parts:
        source = f"stage {starts[part.name]}" if part.name in starts else part.source
        trainable = format_count(part.trainable) if part.trainable else Text("frozen", style="cyan")
        table.add_row(part.name, source, format_count(part.parameters), trainable, part.precision)
    return table
