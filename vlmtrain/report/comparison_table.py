"""A comparison as a table: for a terminal, for a Markdown file, and as plain data."""

from typing import Any

from rich.table import Table
from rich.text import Text

from vlmtrain.report.comparison import Comparison, Entry, Spread
from vlmtrain.report.highlights import format_metric

MOST_KEYS, MOST_METRICS = 6, 4  # columns of a table; the page and the JSON have all


def draw_comparison(comparison: Comparison) -> Table:
    """For a terminal."""
    heading, *rows = _rows(comparison, MOST_KEYS, MOST_METRICS)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for number, column in enumerate(heading):
        table.add_column(column, overflow="fold", no_wrap=number < 2)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def write_markdown(comparison: Comparison, title: str) -> str:
    """A page with one table."""
    heading, *rows = _rows(comparison, MOST_KEYS, MOST_METRICS)
    lines = [heading, ["---"] * len(heading), *rows]
    table = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    return f"# {title}\n\n{describe_order(comparison)}\n\n{table}"


def write_plain(comparison: Comparison) -> dict[str, Any]:
    """Everything but the curves, for programs."""
    return {
        "by": comparison.by,
        "best": comparison.best,
        "differs": list(comparison.keys),
        "entries": [
            {
                "name": entry.name,
                "states": list(entry.states),
                "reason": entry.reason,
                "seeds": list(entry.seeds),
                "settings": dict(entry.settings),
                "metrics": {name: _plain(spread) for name, spread in entry.metrics.items()},
                "folders": list(entry.folders),
            }
            for entry in comparison.entries
        ],
    }


def describe_order(comparison: Comparison) -> str:
    """By what the table is ordered, in words."""
    order = f"Ordered by {comparison.by}, {comparison.best} first" if comparison.by else "In the order given"
    several = any(len(entry.seeds) > 1 for entry in comparison.entries)
    return f"{order}; unfinished runs last." + (" Mean ± standard deviation over seeds." if several else "")


def spell_spread(name: str, spread: Spread | None) -> str:
    """`96.2 % ± 1.1 %`, or one figure alone."""
    if spread is None:
        return ""
    told = format_metric(name, spread.mean)
    if spread.deviation is None:
        return told
    deviation = format_metric(name, spread.deviation) if told.endswith("%") else f"{spread.deviation:.2g}"
    return f"{told} ± {deviation}"


def spell_value(value: Any) -> str:
    """A value of the configuration, short: of a class its name alone."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text.rsplit(".", 1)[-1] if text.startswith("vlmtrain.") else text


def spell_key(key: str) -> str:
    """`model.connector` for the class that stands there."""
    return key.removesuffix("._target_")


def _rows(comparison: Comparison, most_keys: int, most_metrics: int) -> list[list[str]]:
    keys, metrics = list(comparison.keys)[:most_keys], list(comparison.headline)[:most_metrics]
    has_seeds = any(len(entry.seeds) > 1 for entry in comparison.entries)
    heading = ["run", "state", *(["seeds"] if has_seeds else []), *metrics, *map(spell_key, keys)]
    return [heading, *(_row(entry, keys, metrics, has_seeds) for entry in comparison.entries)]


def _row(entry: Entry, keys: list[str], metrics: list[str], has_seeds: bool) -> list[str]:
    state = f"{entry.state}: {entry.reason}" if entry.reason and not entry.is_done else entry.state
    seeds = [str(len(entry.seeds))] if has_seeds else []
    figures = [spell_spread(name, entry.metrics.get(name)) for name in metrics]
    return [entry.name, state, *seeds, *figures, *(spell_value(entry.settings[key]) for key in keys)]


def _plain(spread: Spread) -> dict[str, Any]:
    return {"mean": spread.mean, "standard_deviation": spread.deviation, "values": list(spread.values)}
