"""The summary at the start and the report at the end hold what a user must know, on any width."""

import pytest

from vlmtrain.report.end_report import EndReport, render_end
from vlmtrain.report.start_summary import (
    DataLine,
    PartLine,
    StageLine,
    StartSummary,
    format_bytes,
    format_count,
    render_start,
)


@pytest.fixture
def start() -> StartSummary:
    return StartSummary(
        experiment="blip2_opt",
        scale="tiny",
        other_scales="scale=small, scale=paper",
        parts=[
            PartLine("encoder", "parts/[vit]", 1_240_000, 0, "fp32"),
            PartLine("qformer", "random", 900, 900, "fp32"),
        ],
        stages=[
            StageLine("representation", ["contrastive", "matching"], ["qformer"], 1200, 64, 900, 1_240_900),
            StageLine("language", ["captioning"], ["qformer"], 900, 32, 900, 5, "qformer of representation", "is done"),
        ],
        data=[DataLine("train", 20_000, "scenes")],
        device="cpu, 2 threads",
        precision="fp32",
        run_folder="runs/blip2_opt/1",
        memory_bytes=1_300_000_000,
        notes=["the data has [bold] quirks"],
    )


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_summary_tells_all(start, to_text, width):
    text = to_text(render_start(start), width)
    assert all(len(line) <= width for line in text.splitlines())
    words = " ".join(text.replace("│", " ").split())
    for expected in (
        "blip2_opt", "tiny", "scale=paper", "encoder", "parts/[vit]", "1.24 M", "frozen", "1 representation",
        "contrastive, matching", "1,200 steps of 64", "qformer of representation", "20,000 records",
        "cpu, 2 threads", "1.3 GB", "runs/blip2_opt/1", "[bold] quirks", "is done",
    ):  # fmt: skip
        assert expected in words


def test_the_report_tells_all(make_outcome, to_text):
    outcomes = [make_outcome(f"caption {place}", correct=True) for place in range(5)]
    outcomes += [make_outcome("a [red]", split="compositional", correct=False, reason="no red")]
    report = EndReport(
        "blip2_opt",
        262,
        {
            "representation": {"test/image_to_text_r1": 0.93, "test/num_candidates": 100.0},
            "language": {"test/caption_accuracy": 0.9712, "test/chance_caption_accuracy": 0.003, "test/loss": 0.25},
        },
        outcomes,
        [("samples", "runs/latest/samples/index.html")],
        [("train longer", "vlmtrain +experiment=blip2_opt trainer.max_steps=4000")],
        num_samples=4,
    )
    text = to_text(render_end(report))
    for expected in ("done in 4:22", "97.1 %  captions right · test", "chance 0.3 %", "first of 100", "loss 0.25", "✓",
                     "caption 1", "✗", "a [red]", "no red, true: a dog", "runs/latest/samples/index.html",
                     "trainer.max_steps=4000"):  # fmt: skip
        assert expected in text
    assert "caption 2" not in text


def test_a_report_of_nothing_is_still_a_report(to_text):
    assert "done in 0:01" in to_text(render_end(EndReport("x", 1, {})))


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0"), (999, "999"), (45_200, "45.2 k"), (3_460_000, "3.46 M"), (2_780_000_000, "2.78 B"), (999_999, "1000 k")],
)
def test_counts(count, told):
    assert format_count(count) == told


@pytest.mark.parametrize(("count", "told"), [(512, "512 B"), (3_400_000, "3.4 MB"), (24e9, "24 GB"), (1.5e13, "15 TB")])
def test_bytes(count, told):
    assert format_bytes(count) == told
