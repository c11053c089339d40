"""`vlmtrain plan`: what a run would take, from its configuration alone.  Models are built on the meta device."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlmtrain.report.start_summary import format_bytes, format_count
from vlmtrain.shapes import build_on_meta
from vlmtrain.training.costs import MASTER_BYTES, MemoryCost, PartCost, estimate_memory, list_part_costs
from vlmtrain.training.precision import resolve_precision


def plan(config: dict[str, Any]) -> int:
    """Prints parts, memory, steps, samples and disk of every stage."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text(f"{config['experiment']} at scale {config['scale']}", style="bold"))
    disk = 0
    for name, stage in config["stages"].items():
        model = build_on_meta(stage)
        precision = resolve_precision(stage["trainer"]["precision"])
        parts = list_part_costs(model, precision)
        processes = config["distributed"]["num_processes"]
        micro_batch = stage["trainer"]["batch_size"] // (stage["trainer"]["accumulate"] * processes)
        memory = estimate_memory(model, precision, micro_batch, stage["trainer"]["gradient_checkpointing"])
        disk += _show_stage(console, name, stage, parts, memory, processes)
    console.print(f"disk, all stages: about {format_bytes(disk)} of checkpoints")
    return 0


def _show_stage(
    console: Console, name: str, stage: dict[str, Any], parts: list[PartCost], memory: MemoryCost, processes: int
) -> int:
    trainer = stage["trainer"]
    total, trainable = sum(part.parameters for part in parts), sum(part.trainable for part in parts)
    console.print()
    console.print(_draw_parts(name, stage, parts))
    console.print(f"  {format_count(total)} parameters, {format_count(trainable)} trainable ({trainable / total:.2%})")
    words = (
        f"weights {format_bytes(memory.weights)} + gradients {format_bytes(memory.gradients)} + Adam "
        f"{format_bytes(memory.optimizer)} + activations roughly {format_bytes(memory.activations)}"
    )
    console.print(f"  memory per process {format_bytes(memory.total)}: {words}")
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
