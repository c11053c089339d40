"""The leaderboard of a sweep: `compare` of its trials, written into its folder."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmtrain.launch.sweep_folder import SweepFolder, runs_of
from vlmtrain.report.comparison import Comparison
from vlmtrain.report.comparison_page import render_comparison
from vlmtrain.report.comparison_table import write_markdown, write_plain
from vlmtrain.sweeps.comparing import compare_runs
from vlmtrain.tracking.jsonl import to_strict_json, write_atomically

NAME = "leaderboard"


def write_leaderboard(sweep: SweepFolder) -> Comparison | None:
    """leaderboard.md, .json and .html of the trials as they stand; None where none has begun.

    Trials of an array end at the same moment on several machines: one writes at a time, and each reads anew.
    """
    asked = sweep.read()
    runs = runs_of(sweep.folder)
    if not runs:
        return None
    with _one_at_a_time(sweep.folder / f".{NAME}.lock"):
        metric = asked["sweep"]["metric"]
        comparison = compare_runs(runs, metric if _has(runs, metric) else None, asked["sweep"]["direction"])
        title = f"sweep {asked['name']}"
        plain = {"sweep": asked["name"], **write_plain(comparison)}
        text = json.dumps(to_strict_json(plain), indent=1, ensure_ascii=False, default=str)
        write_atomically(sweep.folder / f"{NAME}.json", text + "\n")
        write_atomically(sweep.folder / f"{NAME}.md", write_markdown(comparison, title))
        write_atomically(sweep.folder / f"{NAME}.html", render_comparison(comparison, title))
    return comparison


def _has(runs: list[Path], metric: str | None) -> bool:
    """Whether a trial has come so far that it has the metric."""
    return metric is not None and metric in compare_runs(runs).metrics


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
