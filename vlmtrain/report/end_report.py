"""What a run tells when it is done: what was learned, a few examples, where to look, what to type next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlmtrain.evaluation.base import SampleOutcome
from vlmtrain.report.highlights import Highlight, format_metric, highlight
from vlmtrain.report.progress import format_duration

_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "dim")}


@dataclass(frozen=True)
class EndReport:
    """All that is told at the end; run.py fills it.  `metrics` is stage -> metric -> value of the evaluations."""

    experiment: str
    seconds: float
    metrics: Mapping[str, Mapping[str, float]]
    samples: Sequence[SampleOutcome] = field(default_factory=tuple)
    places: Sequence[tuple[str, str]] = field(default_factory=tuple)  # ("samples", "runs/latest/samples/index.html")
    next_commands: Sequence[tuple[str, str]] = field(default_factory=tuple)  # ("train longer", "vlmtrain ...")
    num_samples: int = 6
    notes: Sequence[str] = field(default_factory=tuple)


def render_end(report: EndReport) -> RenderableType:
    """The report as rich draws it."""
    blocks: list[RenderableType] = [_draw_highlights(highlight(report.metrics))]
    details = _draw_details(report.metrics)
    blocks += [_titled("all figures", details)] if details.row_count else []
    captions = [sample for sample in report.samples if sample.task == "captioning"] or list(report.samples)
    if captions and report.num_samples:
        blocks.append(_titled("what it says of pictures it never saw", _draw_samples(captions, report.num_samples)))
    if report.places:
        blocks.append(_titled("where to look", _draw_pairs(report.places)))
    if report.next_commands:
        blocks.append(_titled("what to type next", _draw_pairs(report.next_commands)))
    blocks += [Text(note, style="yellow") for note in report.notes]
    title = Text(f"{report.experiment} · done in {format_duration(report.seconds)}", style="bold")
    return Panel(Group(*blocks), title=title, title_align="left", border_style="dim", padding=(1, 2))


def _titled(title: str, body: RenderableType) -> RenderableType:
    return Padding(Group(Text(title, style="dim"), body), (1, 0, 0, 0))


def _draw_highlights(highlights: Sequence[Highlight]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="bold green", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for each in highlights:
        table.add_row(each.value, Text(each.label), Text(each.note))
    return table


def _draw_details(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for stage, values in metrics.items():
        blocks: dict[str, list[str]] = {}
        for name, value in values.items():
            split, _, what = name.partition("/")
            blocks.setdefault(split if what else "", []).append(f"{what or split} {format_metric(name, value)}")
        for place, (split, words) in enumerate(blocks.items()):
            table.add_row(Text(stage if place == 0 else "", style="bold"), Text(f"{split}: {', '.join(words)}"))
    return table


def _draw_samples(samples: Sequence[SampleOutcome], num_samples: int) -> Table:
    """The first samples of every split in turn, so that each split is seen."""
    splits: dict[str, list[SampleOutcome]] = {}
    for sample in samples:
        splits.setdefault(sample.split, []).append(sample)
    shown = [sample for members in splits.values() for sample in members[: max(1, num_samples // len(splits))]]
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for sample in shown:
        mark, colour = _MARKS[sample.correct]
        said = Text(sample.text or "(nothing)")
        if sample.correct is not True and sample.references:
            said.append(f"\n{sample.reason + ', ' if sample.reason else ''}true: {sample.references[0]}", style="dim")
        table.add_row(Text(mark, style=colour), sample.split, said)
    return table


def _draw_pairs(pairs: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", style="cyan")
    for what, where in pairs:
        table.add_row(Text(what), Text(where))
    return table
