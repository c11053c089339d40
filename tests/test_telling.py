"""What a run tells at its start and at its end: the numbers are those of the models and of the results."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from vlmtrain.config.compose import compose
from vlmtrain.report.start_summary import format_count, render_start
from vlmtrain.results import StageResult
from vlmtrain.shapes import build_on_meta
from vlmtrain.telling import describe_end, describe_start, head_page, summarize, typed_command


class Records(list[int]):
    name = "toys"


def data() -> SimpleNamespace:
    return SimpleNamespace(train=Records(range(30)), evaluation={"test": Records(range(5))})


def result(name: str, **changes: Any) -> StageResult:
    values: dict[str, Any] = {"steps": 4, "samples": 32, "seconds": 8.0, "metrics": {"loss": 0.5}, "evaluation": {}}
    values |= {"trainable_parameters": 10, "total_parameters": 100}
    return StageResult(name=name, **(values | changes))


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return compose(["experiment=blip2_opt"]).config


def test_t27_the_share_of_what_trains_is_computed_and_told_at_the_start(config: dict[str, Any], tmp_path: Path) -> None:
    """Told figures equal sums over requires_grad; the published sizes are held by the other tests of T27."""
    summary = describe_start(config, tmp_path, {"representation": data(), "language": data()}, done=["representation"])
    written = io.StringIO()
    Console(file=written, width=200).print(render_start(summary))
    shown = written.getvalue()
    assert [line.name for line in summary.stages] == list(config["stages"])
    for line, section in zip(summary.stages, config["stages"].values(), strict=True):
        parameters = list(build_on_meta(section).parameters())
        assert line.parameters == sum(parameter.numel() for parameter in parameters)
        assert line.trainable == sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        assert 0 < line.trainable < line.parameters
        share = 100 * line.trainable / line.parameters
        percent = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
        assert f"{format_count(line.trainable)} ({percent} %) of {format_count(line.parameters)} trainable" in shown
    assert [line.state for line in summary.stages] == ["done", ""]
    parts = {part.name: part for part in summary.parts}
    assert parts["encoder"].trainable == 0 == parts["language_model"].trainable
    assert (summary.data[0].records, summary.data[1].split) == (30, "test")
    assert summary.stages[1].start_from == "qformer of representation"


def test_t27_the_summary_holds_both_counts() -> None:
    config = {"experiment": "toy", "scale": "tiny", "seed": 0, "distributed": {"num_processes": 1}}
    summary = summarize(config, [result("one"), result("two", trainable_parameters=7, total_parameters=70)])
    assert (summary.trainable_parameters, summary.total_parameters) == (7, 70)


def test_the_summary_adds_up_stages() -> None:
    config = {"experiment": "toy", "scale": "tiny", "seed": 3, "distributed": {"num_processes": 2}}
    first = result("one", evaluation={"test/r1": 0.9}, skipped_steps=1, quarantined=2)
    summary = summarize(config, [first, result("two", samples=64, seconds=2.0, evaluation={"test/r1": 0.1})])
    assert summary.metrics == {"one/test/r1": 0.9, "two/test/r1": 0.1}
    assert summary.seconds == 10.0 and summary.samples_per_second == pytest.approx(96 / 10)
    assert [stage.samples_per_second for stage in summary.stages] == [4.0, 32.0]
    assert summary.stages[0].metrics == {"loss": 0.5, "test/r1": 0.9}
    assert (summary.stages[0].skipped_steps, summary.stages[0].quarantined) == (1, 2)
    assert summary.state == "done" and summary.num_processes == 2 and summary.peak_memory_bytes > 0


def test_the_end_names_places_and_commands(make_outcomes: Callable[[int], list], tmp_path: Path) -> None:
    stage = {"form": {"_target_": "vlmtrain.data.forms.captioning.Captioning"}}
    config = {"experiment": "toy", "scale": "tiny", "stages": {"one": stage, "two": stage}}
    results = [result("one", outcomes=make_outcomes(2), evaluation={"test/r1": 1.0}), result("two")]
    report = describe_end(config, tmp_path, results, [tmp_path / "samples.png"], 12.0)
    assert [place for _, place in report.places] == [
        str(tmp_path / name) for name in ("samples.png", "summary.json", "metrics.jsonl")
    ]
    assert all(command.startswith("vlmtrain") and "experiment=toy" in command for _, command in report.next_commands)
    assert any("data=pairs" in command for _, command in report.next_commands)
    documents = {"form": {"_target_": "vlmtrain.data.forms.text_documents.TextDocuments"}}
    text_only = {**config, "stages": {"one": documents}}
    other = describe_end(text_only, tmp_path, results, [], 12.0)
    assert not any("data=pairs" in command for _, command in other.next_commands)  # it looks at no image
    assert len(report.samples) == 2 and report.metrics == {"one": {"test/r1": 1.0}, "two": {}}
    heading = head_page(config, tmp_path, results)
    assert "16 s of training" in heading.subtitle and heading.footer == str(tmp_path)


@pytest.fixture
def make_outcomes() -> Callable[[int], list]:
    from vlmtrain.evaluation.base import SampleOutcome

    return lambda count: [SampleOutcome("captioning", "test", str(key), b"", "a", ["a"]) for key in range(count)]


def test_the_command_is_told_as_it_can_be_typed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/vlmtrain", "+experiment=toy", "data.path=my photos"])
    assert typed_command() == "vlmtrain +experiment=toy 'data.path=my photos'"
