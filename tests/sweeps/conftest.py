"""Run folders as training leaves them, without training."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlmtrain.launch.sweep_folder import Trial, write_trial

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(started_by_a_user: None) -> None:
    """Every test here."""


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A run of one stage `s` with an evaluation test/loss every 10 steps; the metrics of its end are the last ones."""

    def make(
        name: str, losses: list[float], lr: float = 1e-3, seed: int = 0, done: bool = True, **metrics: float
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        config = configure(lr, seed) | {"run_dir": str(folder)}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        rows = []
        for number, loss in enumerate(losses, 1):
            rows.append(row(10 * number, "train", {"loss": loss + 0.5}))
            rows.append(row(10 * number, "evaluation", {"test/loss": loss, **metrics}))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        if done:
            final = {f"s/{key}": value for key, value in {"test/loss": losses[-1], **metrics}.items()}
            summary = {"state": "done", "metrics": final, "stages": [{"name": "s"}]}
            (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return make


def configure(lr: float, seed: int) -> dict[str, Any]:
    section = {"trainer": {"max_steps": 30, "num_workers": seed}, "optimizer": {"lr": lr}}
    return {"experiment": "toy", "seed": seed, **section, "stages": {"s": section}}


def row(step: int, kind: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {"stage": "s", "step": step, "kind": kind, "metrics": metrics, "timing": {}}


def mark(folder: Path, number: int, **changes: Any) -> Trial:
    """Makes the run a trial of the sweep that its folder lies in."""
    trial = Trial(folder, number, changes.pop("overrides", [f"seed={number}"]), **changes)
    write_trial(trial)
    return trial


@pytest.fixture
def mark_trial() -> Callable[..., Trial]:
    return mark


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on the PATH, for stand-ins of SLURM's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder
