"""A run of the toy (training_toy) held against another one of the same job."""

from pathlib import Path

import pytest
from training_toy import last_per_step, read_lines

from vlmtrain.training.saved import groups_of, read_group

JOB = {"dropout": 0.0, "size": 8, "max_steps": 6, "schedule_steps": 6, "ema": True, "save_every": 2, "eval_norm": True}
STEP = "checkpoints/toy/step-00000006"


def assert_same_run(folder: Path, other: Path, tolerance: float) -> None:
    """Losses and norms of each step, and all that the last checkpoint holds, in whatever way it was written."""
    lines, wanted = (last_per_step(read_lines(each / "metrics.jsonl")) for each in (folder, other))
    assert lines.keys() == wanted.keys()
    for step, line in wanted.items():
        for key in ("loss", "gradient_norm", "accuracy"):
            assert lines[step][key] == pytest.approx(line[key], abs=tolerance), (step, key)
    groups = groups_of(other / STEP)
    assert groups_of(folder / STEP).keys() == groups.keys()
    for group in groups:
        saved, true = read_group(folder / STEP, group), read_group(other / STEP, group)
        assert saved.keys() == true.keys()
        for name, value in true.items():
            assert saved[name].shape == value.shape and saved[name].dtype == value.dtype, name
            assert float((saved[name].double() - value.double()).abs().max()) < 10 * tolerance, name
