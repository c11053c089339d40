import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.tracking.base import Row
from vlmtrain.tracking.jsonl import MetricsFile, read_rows, replay, write_atomically

STAGES = ["representation", "language"]
STEPS = 6


def rows_of_run() -> list[Row]:
    rows = []
    for stage in STAGES:
        rows += [Row(stage, step, {"loss": 1 / step}, {"seconds": 0.1}) for step in range(1, STEPS + 1)]
        rows.append(Row(stage, STEPS, {"test/r1": 0.5}, kind="evaluation"))
    return rows


def without_timing(path) -> list[dict]:
    return [{k: v for k, v in json.loads(line).items() if k != "timing"} for line in path.read_text().splitlines()]


def write_run(path, rows):
    file = MetricsFile(path)
    file.open()
    for row in rows:
        file.log(row)


@settings(max_examples=60, deadline=None)
@given(written=st.integers(0, 14), torn=st.integers(0, 40), behind=st.integers(0, 6), data=st.data())
def test_a_run_killed_anywhere_and_resumed_leaves_the_file_of_an_uninterrupted_one(
    tmp_path_factory, written, torn, behind, data
):
    folder = tmp_path_factory.mktemp("run")
    rows = rows_of_run()
    write_run(folder / "whole.jsonl", rows)
    write_run(folder / "metrics.jsonl", rows[:written])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "language", "step": 3, "kind": "train", "met'[:torn])
    finished, at, step = position_after(rows[: max(0, written - behind)])
    file = MetricsFile(folder / "metrics.jsonl")
    file.open(finished, at, step)
    for row in rows:
        if row.stage not in finished and not (row.stage == at and row.step <= step and row.kind == "train"):
            file.log(row)
    assert without_timing(folder / "metrics.jsonl") == without_timing(folder / "whole.jsonl")


def position_after(rows: list[Row]) -> tuple[list[str], str, int]:
    """What the newest checkpoint would say: finished stages, the current one and its step."""
    finished = [row.stage for row in rows if row.kind == "evaluation"]
    current = STAGES[min(len(finished), 1)]
    return finished, current, max((r.step for r in rows if r.stage == current), default=0)


def test_numbers_that_are_not_finite_are_told_and_come_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_run(path, [Row("a", 1, {"loss": math.nan, "up": math.inf, "down": -math.inf, "zero": 0.0})])
    metrics = json.loads(path.read_text(), parse_constant=pytest.fail)["metrics"]
    assert metrics == {"loss": "NaN", "up": "Infinity", "down": "-Infinity", "zero": 0.0}
    row = read_rows(path)[0]
    assert math.isnan(row.metrics["loss"]) and row.metrics["up"] == math.inf and row.metrics["down"] == -math.inf


def test_a_fresh_start_forgets_the_old_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_run(path, rows_of_run())
    write_run(path, rows_of_run()[:2])
    assert len(read_rows(path)) == 2


def test_rows_are_on_the_disk_at_once_and_seconds_stand_apart(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    file = MetricsFile(path)
    file.open()
    file.log(Row("a", 1, {"loss": 1.0}, {"seconds": 2.0}))
    record = json.loads(path.read_text())
    assert list(record) == ["stage", "step", "kind", "metrics", "timing"]
    assert record["timing"]["seconds"] == 2.0 and record["timing"]["written_at"] > 1e9
    file.sync()


def test_foreign_lines_are_left_out_with_a_warning(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    write_run(path, rows_of_run())
    path.write_text('[1]\nnonsense\n{"stage": "a"}\n' + path.read_text() + '{"stage": "a", "step": 1, "kind"')
    assert len(read_rows(path)) == len(rows_of_run())
    assert caplog.text.count("is left out") == 4


def test_replay_tells_a_tracker_everything(tmp_path):
    told = []

    class Remembers:
        def log(self, row):
            told.append((row.stage, row.step, dict(row.metrics)))

    write_run(tmp_path / "metrics.jsonl", rows_of_run())
    assert replay(tmp_path / "metrics.jsonl", Remembers()) == len(rows_of_run())
    assert told == [(row.stage, row.step, dict(row.metrics)) for row in rows_of_run()]


def test_an_atomic_write_leaves_nothing_beside(tmp_path):
    write_atomically(tmp_path / "a", "one")
    write_atomically(tmp_path / "a", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "two"
