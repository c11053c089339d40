"""Every engine is the same training: one process and two ranks, of whatever engine, may take turns."""

import json
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from safetensors.torch import load_file
from toy_comparison import JOB, STEP, assert_same_run
from training_toy import build_trainer, join, last_per_step, read_lines, start

from vlmtrain.faults.comparison import samples_by_step
from vlmtrain.training.checkpoint import newest_valid, step_of
from vlmtrain.training.engines import deepspeed

ENGINES = ["ddp", "fsdp2", "zero1", "zero2", "zero3"]
OPTIONS = ["fsdp2_frozen_whole", "fsdp2_offload", "zero2_offload"]


def assert_same(folder: Path, alone: Path, tolerance: float) -> None:
    files = sorted(file.name for file in (alone / STEP).glob("*.safetensors"))
    assert files == sorted(file.name for file in (folder / STEP).glob("*.safetensors"))
    assert_same_run(folder, alone, tolerance)


@pytest.mark.parametrize("engine", [*ENGINES, *(pytest.param(each, marks=pytest.mark.slow) for each in OPTIONS)])
def test_two_ranks_of_any_engine_equal_one_process(engine: str, alone: Path, tmp_path: Path) -> None:
    assert join(start(tmp_path, 2, engine=engine, accumulate=2, **JOB)) == [0, 0]
    assert_same(tmp_path, alone, 1e-5)


@pytest.mark.parametrize("objective", ["contrastive", "momentum"])
@pytest.mark.parametrize("engine", [pytest.param(each, marks=pytest.mark.slow) for each in ENGINES[1:]])
def test_what_compares_samples_surveys_all_ranks(engine: str, objective: str, tmp_path: Path) -> None:
    rates = {"encoder": 1.0, "connector": 1.0, "head": 0.5, "scale": 1.0}
    job = {**JOB, "objective": objective, "rates": rates}
    assert join(start(tmp_path / "alone", 1, **job)) == [0]
    assert join(start(tmp_path / "two", 2, engine=engine, accumulate=2, **job)) == [0, 0]
    for wanted, line in zip(*(read_lines(tmp_path / each / "metrics.jsonl") for each in ("alone", "two")), strict=True):
        for key in ("loss", "gradient_norm"):
            assert line[key] == pytest.approx(wanted[key], abs=1e-5), (line["step"], key)


def test_engines_take_turns_in_one_run(alone: Path, tmp_path: Path) -> None:
    """DDP on two ranks, ZeRO-3 on two, one process, FSDP2 on four; each goes on where the one before was stopped."""
    turns = [("ddp", 2, 2), ("zero3", 2, 4), ("ddp", 1, 5), ("fsdp2", 4, 6)]
    for engine, world, until in turns:
        assert join(start(tmp_path, world, engine=engine, **{**JOB, "max_steps": until})) == [0] * world, engine
    assert_same(tmp_path, alone, 1e-6)


def kill_at(step: int, folder: Path, ranks: list[BaseProcess]) -> None:
    """kill -9 for all ranks, at whatever they are doing when that step is in metrics.jsonl."""
    until, metrics = time.monotonic() + 120, folder / "metrics.jsonl"
    while not metrics.exists() or not any(line["step"] >= step for line in whole_lines(metrics)):
        assert time.monotonic() < until and all(rank.is_alive() for rank in ranks), [rank.exitcode for rank in ranks]
        time.sleep(0.01)
    for rank in ranks:
        os.kill(rank.pid or 0, signal.SIGKILL)
    assert join(ranks) == [-signal.SIGKILL] * len(ranks)


def whole_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.slow
def test_killed_engines_take_turns_in_one_run(tmp_path: Path) -> None:
    """DDP on two ranks and ZeRO-3 on two, both killed, one process, FSDP2 on four; whole and in parts, also by a
    thread: the losses and samples of one process that nobody disturbed."""
    job = {**JOB, "max_steps": 12, "schedule_steps": 12}
    folder = tmp_path / "turns"
    kill_at(3, folder, start(folder, 2, engine="ddp", pace=0.1, **job))
    assert newest_valid(folder / "checkpoints/toy") == folder / "checkpoints/toy/step-00000002"
    kill_at(7, folder, start(folder, 2, engine="zero3", pace=0.1, in_parts=True, asynchronously=True, **job))
    newest = newest_valid(folder / "checkpoints/toy")
    assert newest is not None and 4 <= step_of(newest) <= 6
    assert join(start(folder, 1, **{**job, "max_steps": step_of(newest) + 3})) == [0]
    assert join(start(folder, 4, engine="fsdp2", in_parts=True, **job)) == [0] * 4
    assert join(start(tmp_path / "alone", 1, **job)) == [0]
    lines, wanted = (last_per_step(whole_lines(each / "metrics.jsonl")) for each in (folder, tmp_path / "alone"))
    assert lines.keys() == wanted.keys() == set(range(1, 13))
    for step, line in wanted.items():
        assert lines[step]["loss"] == pytest.approx(line["loss"], abs=1e-6), step
    samples = [samples_by_step(each, ".", batch_size=8) for each in (folder, tmp_path / "alone")]
    assert samples[0] == samples[1] and len(samples[0]) == 12


@pytest.mark.parametrize("engine", ["fsdp2", "zero2", "zero3"])
@pytest.mark.parametrize("where", ["loss", pytest.param("gradient", marks=pytest.mark.slow)])
def test_nan_on_one_rank_is_skipped_on_all(engine: str, where: str, tmp_path: Path) -> None:
    broken = {"steps": [3], "rank": 1, "where": where}
    for folder, choice in ((tmp_path / "ddp", "ddp"), (tmp_path / engine, engine)):
        assert join(start(folder, 2, engine=choice, broken=broken, **JOB)) == [0, 0]
        (line,) = read_lines(folder / "logs/skipped_steps.jsonl")
        assert line["step"] == 3
    saved, wanted = (load_file(tmp_path / each / STEP / "connector.safetensors") for each in (engine, "ddp"))
    for name, value in wanted.items():
        assert float((saved[name] - value).abs().max()) < 1e-5, name


def test_without_deepspeed_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deepspeed, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'vlmtrain\[deepspeed\]'"):
        build_trainer(tmp_path, engine="zero2")


def test_zero_refuses_what_begins_to_train_later(tmp_path: Path) -> None:
    """Weight decay would move it from the first step on."""
    rates = {"encoder": {"from_step": 3, "rate": 1.0}, "connector": 1.0, "head": 1.0, "scale": 1.0}
    with pytest.raises(ValueError, match=r"from_step.*distributed=ddp or distributed=fsdp2"):
        build_trainer(tmp_path, engine="zero3", rates=rates)


def test_copies_have_to_divide_the_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmtrain.training.accelerator import build_accelerator
    from vlmtrain.training.engines import fsdp2

    monkeypatch.setattr(fsdp2, "require_process_group", lambda accelerator: None)
    with pytest.raises(ValueError, match="copies is 2; give a number that divides the 1 processes"):
        fsdp2.FSDP2(copies=2)._build_mesh(build_accelerator("fp32"))
