"""The losses of tiny runs, to five digits: a refactor must not move them (`make golden`).

A change that means to move them writes them anew, VLMTRAIN_WRITE_GOLDEN=1 make golden, and says why in its commit.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmtrain.tracking.jsonl import read_rows

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).with_name("golden_losses.json")
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
NUM_STEPS = 5


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_losses_are_the_committed_ones(experiment: str, train_experiment: Callable[..., Path]) -> None:
    run_folder = train_experiment(experiment, NUM_STEPS, "seed=0", "trainer.precision=fp32", "trainer.threads=1")
    rows = [row for row in read_rows(run_folder / "metrics.jsonl") if "loss" in row.metrics]
    losses = {f"{row.stage} {row.step}": row.metrics["loss"] for row in rows if row.step <= NUM_STEPS}
    assert len(losses) >= NUM_STEPS, f"found only {losses}"
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("VLMTRAIN_WRITE_GOLDEN"):
        written = {**golden, experiment: {name: float(f"{loss:.6g}") for name, loss in losses.items()}}
        GOLDEN.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
        return
    assert experiment in golden, "no golden losses yet: VLMTRAIN_WRITE_GOLDEN=1 make golden, then commit the file"
    assert losses == pytest.approx(golden[experiment], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_in_fp16_every_stage_begins_with_nearly_the_same_loss_and_trains(
    experiment: str, train_experiment: Callable[..., Path]
) -> None:
    """On CPUs, whose autocast leaves softmax and norms in fp16 where that of GPUs has fp32."""
    run_folder = train_experiment(experiment, NUM_STEPS, "seed=0", "trainer.precision=fp16", "trainer.threads=1")
    rows = [row for row in read_rows(run_folder / "metrics.jsonl") if "loss" in row.metrics]
    golden = json.loads(GOLDEN.read_text())[experiment]
    for stage in {row.stage for row in rows}:
        first, *_, last = (row.metrics for row in rows if row.stage == stage)
        assert first["loss"] == pytest.approx(golden[f"{stage} 1"], rel=0.05), stage
        assert math.isfinite(last["gradient_norm"]) and last["skipped_steps"] == 0, "the scale has found its place"
