"""What a run tells while it goes on, over interruptions."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vlmtrain.journal import Journal
from vlmtrain.tracking.base import Row
from vlmtrain.tracking.jsonl import read_rows

CONFIG: dict[str, Any] = {"experiment": "toy", "stages": {"one": {}, "two": {}}, "tracker": {}}


def averages(loss: float, **more: float) -> dict[str, float]:
    told = {"loss": loss, "loss/matching": loss / 2, "samples_per_second": 80.0, "data_wait": 0.1, "skipped_steps": 0.0}
    return {**told, **more}


def open_journal(folder: Path, config: dict[str, Any] = CONFIG) -> tuple[Journal, io.StringIO]:
    written = io.StringIO()
    return Journal(config, folder, Console(file=written, width=200)), written


def steps_of(folder: Path) -> list[tuple[str, int, str]]:
    return [(row.stage, row.step, row.kind) for row in read_rows(folder / "metrics.jsonl")]


def test_rows_that_a_resumed_run_writes_again_are_dropped(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    journal.start_stage("one", 0, 4)
    for step in (2, 4):
        journal.training("one", step, averages(1.0))
    journal.evaluation("one", 4, {"test/r1": 0.5})
    journal.start_stage("two", 0, 6)
    for step in (2, 4, 6):
        journal.training("two", step, averages(2.0))
    again, _ = open_journal(tmp_path)
    again.start_stage("two", 3, 6)  # the newest checkpoint is of step 3
    assert steps_of(tmp_path) == [
        ("one", 2, "train"),
        ("one", 4, "train"),
        ("one", 4, "evaluation"),
        ("two", 2, "train"),
    ]
    again.training("two", 4, averages(3.0))
    assert steps_of(tmp_path)[-1] == ("two", 4, "train")
    assert again.last_metrics("two")["loss"] == 3.0


def test_rows_of_steps_that_training_went_back_over_are_written_anew(tmp_path: Path) -> None:
    """Ranks that diverged return to a checkpoint within one process; what the diverged steps came to is no figure."""
    journal, _ = open_journal(tmp_path)
    journal.start_stage("one", 0, 8)
    for step, loss in ((2, 1.0), (4, 9.0), (6, 9.0)):
        journal.training("one", step, averages(loss))
    journal.evaluation("one", 6, {"test/r1": 0.1})
    for step, loss in ((4, 2.0), (6, 3.0), (8, 4.0)):
        journal.training("one", step, averages(loss))
    journal.evaluation("one", 8, {"test/r1": 0.5})
    rows = [(row.step, row.kind, row.metrics.get("loss")) for row in read_rows(tmp_path / "metrics.jsonl")]
    steps = [(2, "train", 1.0), (4, "train", 2.0), (6, "train", 3.0), (8, "train", 4.0)]
    assert rows == [*steps, (8, "evaluation", None)]


def test_a_stage_that_starts_over_forgets_itself_and_later_stages(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    for name in ("one", "two"):
        journal.start_stage(name, 0, 2)
        journal.training(name, 2, averages(1.0))
    again, _ = open_journal(tmp_path)
    again.start_stage("one", 0, 2)
    assert steps_of(tmp_path) == []


def test_seconds_add_up_over_processes_and_leave_out_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("vlmtrain.journal.time.monotonic", lambda: now[0])

    def train(journal: Journal, *steps: int) -> None:
        for step in steps:
            now[0] += 5
            journal.training("one", step, averages(1.0, skipped_steps=1.0))

    journal, _ = open_journal(tmp_path)
    journal.start_stage("one", 0, 4)
    train(journal, 1, 2, 3)
    now[0] += 1000  # nobody trains
    again, _ = open_journal(tmp_path)
    again.start_stage("one", 2, 4)
    train(again, 3, 4)
    assert again.seconds("one") == 20 and again.seconds("two") == 0
    assert again.skipped_steps("one") == 4


def test_what_differs_between_equal_runs_stands_apart(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    journal.start_stage("one", 0, 2)
    journal.training("one", 1, averages(math.nan, truncated_texts=3.0))
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record["metrics"] == {"loss": "NaN", "loss/matching": "NaN", "skipped_steps": 0.0, "truncated_texts": 3.0}
    assert set(record["timing"]) == {"samples_per_second", "data_wait", "seconds", "written_at"}


def test_the_progress_line_shows_loss_and_terms(tmp_path: Path) -> None:
    journal, written = open_journal(tmp_path)
    journal.start_stage("two", 0, 2)
    journal.training("two", 2, averages(1.25, **{"loss/contrastive": 0.75, "skipped_steps": 2.0}))
    assert "two 2/2 · 2/2" in written.getvalue()
    for told in ("loss 1.250", "matching 0.625", "contrastive 0.750", "80 samples/s", "data 10 %", "2 skipped"):
        assert told in written.getvalue()


def test_an_evaluation_is_a_row_of_its_own_and_an_empty_one_is_none(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path)
    journal.start_stage("one", 0, 2)
    journal.training("one", 2, averages(1.0))
    journal.evaluation("one", 2, {})
    journal.evaluation("one", 2, {"test/caption_accuracy": 0.9})
    assert steps_of(tmp_path) == [("one", 2, "train"), ("one", 2, "evaluation")]
    assert journal.last_metrics("one")["loss"] == 1.0, "the last training row, not the evaluation"
    assert journal.last_metrics("two") == {}


class Remembering:
    """In the place of the tracker that stands behind a background thread."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def start(self, run: Any) -> None:
        self.told.append(run.name)

    def log(self, row: Row) -> None:
        self.told.append((row.step, row.kind))

    def image(self, stage: str, step: int, path: Path) -> None:
        self.told.append(path.name)

    def finish(self) -> None:
        self.told.append("end")


def test_trackers_are_told_everything_and_shown_pictures_only(tmp_path: Path) -> None:
    journal, _ = open_journal(tmp_path / "2026")
    tracker = Remembering()
    journal._trackers = [tracker]  # type: ignore[list-item]
    journal.start()
    journal.start_stage("one", 0, 1)
    journal.training("one", 1, averages(1.0))
    journal.evaluation("one", 1, {"r1": 1.0})
    journal.images("one", 1, [Path("samples.png"), Path("index.html")])
    journal.finish()
    assert tracker.told == ["toy/2026", (1, "train"), (1, "evaluation"), "samples.png", "end"]


def test_every_process_but_the_first_keeps_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    journal, written = open_journal(tmp_path)
    tracker = Remembering()
    journal._trackers = [tracker]  # type: ignore[list-item]
    journal.start()
    journal.start_stage("one", 0, 1)
    journal.training("one", 1, averages(1.0))
    journal.say("hello")
    journal.show("hello")
    journal.finish()
    assert not (tmp_path / "metrics.jsonl").exists() and not written.getvalue() and not tracker.told
