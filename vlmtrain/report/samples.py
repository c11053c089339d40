"""The folder `samples/` of a run."""

from collections.abc import Sequence
from pathlib import Path

from vlmtrain.evaluation.base import SampleOutcome
from vlmtrain.report.highlights import highlight
from vlmtrain.report.sample_grid import draw_grid
from vlmtrain.report.sample_page import PageHeading, render_page

_PER_SPLIT_IN_GRID = 8


def write_samples(folder: Path, outcomes: Sequence[SampleOutcome], heading: PageHeading) -> tuple[Path, Path]:
    """Writes `samples.png` and `index.html`, and returns their paths.

    The page shows every outcome; the picture the first eight of each split, of captioning where there is any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    grid, page = folder / "samples.png", folder / "index.html"
    figures = " · ".join(f"{each.label} {each.value}" for each in highlight(heading.metrics)[:3])
    draw_grid(_first_of_each(outcomes), grid, heading.title, figures or heading.subtitle)
    page.write_text(render_page(outcomes, heading), encoding="utf-8")
    return grid, page


def _first_of_each(outcomes: Sequence[SampleOutcome]) -> list[SampleOutcome]:
    captions = [outcome for outcome in outcomes if outcome.task == "captioning"] or list(outcomes)
    splits = dict.fromkeys((outcome.task, outcome.split) for outcome in captions)
    return [
        outcome
        for section in splits
        for outcome in [each for each in captions if (each.task, each.split) == section][:_PER_SPLIT_IN_GRID]
    ]
