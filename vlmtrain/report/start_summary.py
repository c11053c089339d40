"""What a run tells before it starts: what will be trained, from what, on what, where it will lie."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class PartLine:
    """One part of the models, or the same part in several stages."""

    name: str  # "encoder"
    source: str  # folder or name of its weights, "random", "stage representation"
    parameters: int
    trainable: int  # in the stage that trains most of it
    precision: str  # "fp32", "bf16", "fp16"


@dataclass(frozen=True)
class StageLine:
    """One stage in the order of training."""

    name: str
    objectives: Sequence[str]
    trained_parts: Sequence[str]
    steps: int
    batch_size: int  # global
    trainable: int
    parameters: int
    start_from: str = ""  # "qformer of representation"
    state: str = ""  # "is done already", "goes on from step 300"


@dataclass(frozen=True)
class DataLine:
    """One split."""

    split: str
    records: int
    source: str  # folder or description


@dataclass(frozen=True)
class StartSummary:
    """All that is told at the start; run.py fills it."""

    experiment: str
    scale: str
    other_scales: str  # 'scale=small data=pairs data.path=FOLDER, scale=paper'
    parts: Sequence[PartLine]
    stages: Sequence[StageLine]
    data: Sequence[DataLine]
    device: str  # "cpu, 2 threads"
    precision: str
    run_folder: str
    memory_bytes: int | None = None  # estimated
    seed: int = 0
    notes: Sequence[str] = field(default_factory=tuple)


def render_start(summary: StartSummary) -> RenderableType:
    """The summary as rich draws it, in 100 columns or fewer."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("scale", Text(f"{summary.scale}   (others: {summary.other_scales})"))
    memory = f", about {format_bytes(summary.memory_bytes)} of memory" if summary.memory_bytes else ""
    facts.add_row("device", Text(f"{summary.device}, {summary.precision}{memory}"))
    facts.add_row("data", Text("\n".join(_describe_data(line) for line in summary.data) or "none"))
    facts.add_row("seed", str(summary.seed))
    facts.add_row("run folder", Text(summary.run_folder))
    for note in summary.notes:
        facts.add_row("note", Text(note, style="yellow"))
    body = Group(facts, Padding(_draw_parts(summary.parts), (1, 0, 0, 0)), Padding(_draw_stages(summary), (1, 0, 0, 0)))
    return Panel(
        body, title=Text(summary.experiment, style="bold"), title_align="left", border_style="dim", padding=(1, 2)
    )


def format_count(count: int) -> str:
    """`812`, `45.2 k`, `3.46 M`, `2.78 B`: three digits."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}" if count / size < 999.5 else f"{count / size:.0f} {letter}"
    return str(count)


def format_bytes(count: float) -> str:
    """`512 B`, `3.4 MB`, `24 GB`: powers of 1000."""
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count / size < 10 else f"{count / size:.0f} {unit}"
    return f"{count:.0f} B"


def _describe_data(line: DataLine) -> str:
    return f"{line.split}: {line.records:,} records from {line.source}"


def _draw_parts(parts: Sequence[PartLine]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("part", no_wrap=True)
    table.add_column("source", overflow="fold")
    for name in ("parameters", "trainable"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("precision")
    for part in parts:
        trainable = Text("frozen", style="cyan") if not part.trainable else _share(part.trainable, part.parameters)
        table.add_row(Text(part.name), Text(part.source), format_count(part.parameters), trainable, part.precision)
    return table


def _draw_stages(summary: StartSummary) -> Table:
    """Two lines a stage: what it learns, and what that takes."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row(Text("stage", style="dim"), "")
    for number, stage in enumerate(summary.stages, start=1):
        table.add_row(Text(f"{number} {stage.name}", style="bold"), _describe_stage(stage))
    return table


def _describe_stage(stage: StageLine) -> Text:
    text = Text(f"learns {', '.join(stage.objectives)}; trains {', '.join(stage.trained_parts)}\n")
    text.append(f"{stage.steps:,} steps of {stage.batch_size} samples, ")
    text.append(_share(stage.trainable, stage.parameters)).append(f" of {format_count(stage.parameters)} trainable")
    if stage.start_from:
        text.append(f"\nstarts from {stage.start_from}")
    if stage.state:
        text.append(f"\n{stage.state}", style="yellow")
    return text


def _share(part: int, whole: int) -> Text:
    percent = 100 * part / whole if whole else 0.0
    return Text(
        f"{format_count(part)} ({percent:.0f} %)" if percent >= 10 else f"{format_count(part)} ({percent:.2g} %)"
    )
