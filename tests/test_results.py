"""What is kept of a finished stage comes back as it was, and is there as a whole or not at all."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmtrain.evaluation.base import SampleOutcome
from vlmtrain.results import StageResult, read_result, write_result

NUMBERS = st.dictionaries(st.text(max_size=8), st.floats(), max_size=4)
OUTCOMES = st.builds(
    SampleOutcome,
    task=st.sampled_from(["captioning", "retrieval"]),
    split=st.text(max_size=4),
    key=st.text(max_size=4),
    image=st.binary(max_size=64),
    text=st.text(max_size=12),
    references=st.lists(st.text(max_size=8), max_size=3),
    correct=st.sampled_from([True, False, None]),
    control_image=st.none() | st.binary(max_size=16),
    control_text=st.none() | st.text(max_size=8),
    control_correct=st.sampled_from([True, False, None]),
)


def result(**changes: Any) -> StageResult:
    values: dict[str, Any] = {"name": "language", "steps": 4, "samples": 32, "seconds": 1.5}
    values |= {"trainable_parameters": 10, "total_parameters": 100, "metrics": {"loss": 0.5}, "evaluation": {}}
    return StageResult(**(values | changes))


def comparable(kept: StageResult) -> str:
    """NaN is not equal to itself; its name is."""
    return repr(kept)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metrics=NUMBERS, evaluation=NUMBERS, outcomes=st.lists(OUTCOMES, max_size=3))
def test_what_is_written_comes_back(
    tmp_path: Path, metrics: dict[str, float], evaluation: dict[str, float], outcomes: list[SampleOutcome]
) -> None:
    """Numbers that are none and bytes that are no text among them."""
    kept = result(metrics=metrics, evaluation=evaluation, outcomes=outcomes, skipped_steps=2, quarantined=3)
    write_result(tmp_path, kept)
    found = read_result(tmp_path, "language")
    assert found is not None and comparable(found) == comparable(kept)
    json.loads((tmp_path / "results" / "language.json").read_text(), parse_constant=pytest.fail)


def test_nan_is_told_and_not_hidden(tmp_path: Path) -> None:
    write_result(tmp_path, result(metrics={"loss": math.nan, "up": math.inf}))
    found = read_result(tmp_path, "language")
    assert found is not None and math.isnan(found.metrics["loss"]) and found.metrics["up"] == math.inf


def test_a_stage_that_is_not_done_has_no_result(tmp_path: Path) -> None:
    assert read_result(tmp_path, "language") is None
    write_result(tmp_path, result(name="representation"))
    assert read_result(tmp_path, "language") is None


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path, result(steps=4))

    def fail(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_result(tmp_path, result(steps=5))
    found = read_result(tmp_path, "language")
    assert found is not None and found.steps == 4
