"""A sweep that really trains, as a user starts it.  scripts/sweep_test.py kills a trial of a larger one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "experiment=prefix_lm", "data.folder=scenes", "data.num_train=32", "data.num_test=8", "data.num_compositional=8",
    "data.num_processes=1", "trainer.max_steps=4", "trainer.log_every=1",
    "trainer.batch_size=4", "trainer.num_workers=0", "optimizer.warmup=0",
    "trainer.threads=1", "trainer.evaluate_every=2", "stages.prefix.evaluation.captions.limit=4", "run_dir=sweep",
]  # fmt: skip


@pytest.mark.slow
def test_two_trials_at_a_time_end_on_one_leaderboard(tmp_path: Path) -> None:
    def sweep() -> str:
        command = [sys.executable, "-m", "vlmtrain.main", "-m", "--at-once=2", *SHORT, "optimizer.lr=1e-3,1e-2"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert sweep().count("begins") == 2
    board = json.loads((tmp_path / "sweep" / "leaderboard.json").read_text())
    assert sorted(entry["name"] for entry in board["entries"]) == ["lr_0.001", "lr_0.01"]
    assert board["differs"] == ["optimizer.lr"] and all(entry["states"] == ["done"] for entry in board["entries"])
    assert "<polyline" in (tmp_path / "sweep" / "leaderboard.html").read_text()
    ends = {file: file.stat().st_mtime for file in tmp_path.glob("sweep/*/summary.json")}
    assert "begins" not in sweep() and all(file.stat().st_mtime == end for file, end in ends.items())
