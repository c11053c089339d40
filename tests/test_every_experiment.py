"""Every file of conf/experiment/ composes at every scale, and trains.  A new file is found by itself (`make smoke`)."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmtrain.config.check import check
from vlmtrain.config.compose import compose

CONF = Path(__file__).resolve().parents[1] / "conf"
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
SCALES = sorted(path.stem for path in (CONF / "scale").glob("*.yaml"))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_composes_and_is_right(experiment: str, scale: str) -> None:
    composed = compose([f"experiment={experiment}", f"scale={scale}"])
    check(composed)
    assert composed.config["scale"] == scale
    assert composed.config["stages"], "an experiment is at least one stage"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_its_header_shows_the_command(experiment: str) -> None:
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    header = lines[: [line.startswith("#") for line in lines].index(False)]
    commands = (f"experiment={experiment}", "python scripts/")
    assert any(command in line for line in header for command in commands), "put the command into the header"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_it_trains_for_two_steps(experiment: str, train_experiment: Callable[..., Path]) -> None:
    """From the first stage to the summary, in a process of its own."""
    run_folder = train_experiment(experiment, 2)
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary["experiment"] == experiment
    assert summary["stages"] and all(stage["steps"] == 2 for stage in summary["stages"])
    assert (run_folder / "metrics.jsonl").read_text().strip()
