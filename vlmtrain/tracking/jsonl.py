"""`metrics.jsonl`: every metric of a run, one JSON object a line.  All else that shows metrics only repeats it."""

import json
import logging
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from time import time
from typing import Any

from vlmtrain.tracking.base import Row, Tracker

logger = logging.getLogger(__name__)

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class MetricsFile:
    """Appends rows, each flushed to the operating system at once, and drops what a resumed run will write again.

    A line: {"stage", "step", "kind", "metrics": {...}, "timing": {..., "written_at"}}.  Everything except `timing` of
    an interrupted and resumed run equals the uninterrupted one's.  Numbers that are not finite are written as the
    strings "NaN", "Infinity" and "-Infinity", so that every JSON reader can read the file; never as 0 or null.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[tuple[str, int, str]] = set()

    def open(self, finished: Collection[str] = (), stage: str | None = None, step: int = 0) -> None:
        """Goes on after `step` of `stage`: keeps all rows of `finished` stages, of `stage` those up to `step`.

        Rows of other stages, later rows and a line that a crash cut short are dropped, by an atomic rewrite.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept: dict[tuple[str, int, str], str] = {}
        for line, row in _read_lines(self.path):
            if row.stage in finished or (row.stage == stage and row.step <= step):
                kept.setdefault(_key(row), line)
        self._known = set(kept)
        write_atomically(self.path, "".join(f"{line}\n" for line in kept.values()))

    def log(self, row: Row) -> None:
        """Writes the row, unless the run that is resumed here wrote it already."""
        if _key(row) in self._known:
            return
        self._known.add(_key(row))
        timing = {**row.timing, "written_at": round(time(), 3)}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_to_line(replace(row, timing=timing)) + "\n")

    def sync(self) -> None:
        """Puts all rows on the disk; call it before a checkpoint is published, so that the file is never behind it."""
        with self.path.open("a", encoding="utf-8") as file:
            os.fsync(file.fileno())


def read_rows(path: Path) -> list[Row]:
    """All whole rows of a metrics file, with NaN and infinities as numbers again."""
    return [row for _, row in _read_lines(path)]


def replay(path: Path, tracker: Tracker) -> int:
    """Tells a started tracker all rows of a metrics file, for instance after an outage; returns how many."""
    rows = read_rows(path)
    for row in rows:
        tracker.log(row)
    return len(rows)


def write_atomically(path: Path, text: str) -> None:
    """The file has either its old content or all of `text`, whenever the process or the machine stops."""
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with staged.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)


def write_numbers(numbers: Mapping[str, float]) -> dict[str, float | str]:
    """Numbers as strict JSON can hold them: those that are not finite become strings."""
    return {name: to_strict_json(float(value)) for name, value in numbers.items()}


def to_strict_json(value: Any) -> Any:
    """Data with every number that is not finite as the string that `metrics.jsonl` writes for it."""
    if isinstance(value, Mapping):
        return {str(name): to_strict_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_strict_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _key(row: Row) -> tuple[str, int, str]:
    return row.stage, row.step, row.kind


def _to_line(row: Row) -> str:
    record = {
        "stage": row.stage,
        "step": row.step,
        "kind": row.kind,
        "metrics": write_numbers(row.metrics),
        "timing": write_numbers(row.timing),
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False)


def _read_lines(path: Path) -> Iterator[tuple[str, Row]]:
    """Whole lines and their rows; what cannot be read is left out with a warning."""
    if not path.exists():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
            row = Row(
                record["stage"],
                int(record["step"]),
                read_numbers(record["metrics"]),
                read_numbers(record["timing"]),
                record["kind"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s, line %d is no row of metrics and is left out: %r", path, number, error)
            continue
        yield line, row


def read_numbers(numbers: Mapping[str, Any]) -> dict[str, float]:
    """What write_numbers wrote, as numbers again."""
    return {name: _NOT_FINITE[value] if isinstance(value, str) else float(value) for name, value in numbers.items()}
