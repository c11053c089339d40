"""Several processes: invariance, signals, kills, elastic restarts, silent divergence."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_toy import join, last_per_step, read_lines, start, wait_until_started

EXACT = {"dropout": 0.0, "size": 8}


def finish(folder: Path, world: int = 1, **job: object) -> dict[str, torch.Tensor]:
    assert join(start(folder, world, **job)) == [0] * world
    return load_file(folder / "final.safetensors")


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=tolerance, rtol=0, msg=lambda told, n=name: f"{n}: {told}")


def sample_log(folder: Path, world: int) -> dict[int, set[str]]:
    logs = [last_per_step(read_lines(folder / f"logs/samples-rank{rank}.jsonl")) for rank in range(world)]
    return {step: {name for log in logs for batch in log[step]["micro_batches"] for name in batch} for step in logs[0]}


def test_two_processes_equal_one_with_accumulation(tmp_path: Path) -> None:
    """Samples have 1 to 5 targets, so that micro-batches weigh unevenly."""
    two = finish(tmp_path / "two", 2, **EXACT)
    one = finish(tmp_path / "one", 1, accumulate=2, **EXACT)
    assert_close(two, one, 1e-5)
    lines = [read_lines(tmp_path / name / "metrics.jsonl") for name in ("two", "one")]
    for two_line, one_line in zip(*lines, strict=True):
        for key in ("loss", "accuracy", "gradient_norm"):
            assert two_line[key] == pytest.approx(one_line[key], abs=1e-5), key
    assert sample_log(tmp_path / "two", 2) == sample_log(tmp_path / "one", 1)


@pytest.mark.parametrize("rates", [None, {"encoder": 1.0, "connector": 1.0, "head": 0.5, "scale": 1.0}])
def test_t14_contrastive_gradients_on_two_processes_equal_those_on_one(tmp_path: Path, rates: dict | None) -> None:
    """Frozen and trained encoder (in eval mode: batch statistics would differ by the cut)."""
    job = {
        "objective": "contrastive",
        "max_steps": 3,
        **EXACT,
        **({"rates": rates, "eval_norm": True} if rates else {}),
    }
    cuts = {"one": (1, 1), "two": (2, 1), "four": (2, 2)}
    for name, (world, accumulate) in cuts.items():
        finish(tmp_path / name, world, accumulate=accumulate, **job)
    gradients = {name: load_file(tmp_path / name / "gradients.safetensors") for name in cuts}
    for name in ("two", "four"):
        assert_close(gradients[name], gradients["one"], 1e-5)
        for key in ("loss", "image_to_text@1"):
            one = read_lines(tmp_path / "one/metrics.jsonl")[0][key]
            assert read_lines(tmp_path / name / "metrics.jsonl")[0][key] == pytest.approx(one, abs=1e-5)


def test_t14_teacher_and_queue_on_two_processes_are_those_on_one(tmp_path: Path) -> None:
    """Frozen batch statistics: of a cut batch they would differ."""
    rates = {"encoder": 1.0, "connector": 1.0, "head": 0.5, "scale": 1.0}
    job = {"objective": "momentum", "ema": True, "max_steps": 4, **EXACT, "rates": rates, "eval_norm": True}
    cuts = {"one": (1, 1), "two": (2, 1), "four": (2, 2)}
    ends = {name: finish(tmp_path / name, world, accumulate=cut, **job) for name, (world, cut) in cuts.items()}
    queues = {name: load_file(tmp_path / name / "checkpoints/toy/step-00000004/objective.safetensors") for name in cuts}
    for name in ("two", "four"):
        assert_close(ends[name], ends["one"], 1e-5)
        assert_close(queues[name], queues["one"], 1e-5)


def test_killed_at_random_moments_ends_bit_identical(tmp_path: Path) -> None:
    job = {"max_steps": 40, "pace": 0.01, "dropout": 0.3, "ema": True}
    chance = random.Random(0)
    straight = finish(tmp_path / "straight", **job)
    for _ in range(6):
        (run,) = start(tmp_path / "killed", **job)
        wait_until_started(tmp_path / "killed", 1)
        time.sleep(chance.uniform(0, 0.5))
        run.kill()
        run.join()
    assert_close(finish(tmp_path / "killed", **job), straight, 0)
    moments = [load_file(tmp_path / name / "moments.safetensors") for name in ("killed", "straight")]
    assert_close(*moments, 0)
    assert sample_log(tmp_path / "killed", 1) == sample_log(tmp_path / "straight", 1)


def test_one_of_two_ranks_killed_or_signalled(tmp_path: Path) -> None:
    job = {"max_steps": 40, "pace": 0.01, "dropout": 0.3}
    straight = finish(tmp_path / "straight", 2, **job)
    folder, chance = tmp_path / "hit", random.Random(1)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1):
        ranks = start(folder, 2, **job)
        wait_until_started(folder, 2)
        time.sleep(chance.uniform(0.02, 0.15))
        os.kill(ranks[chance.randrange(2)].pid or 0, number)
        if number == signal.SIGKILL:  # the launcher tears the rest down
            for rank in ranks:
                rank.kill()
            join(ranks)
            continue
        assert join(ranks) == [143, 143]
        steps = {(folder / f"stopped-{rank}.txt").read_text().split()[0] for rank in range(2)}
        assert len(steps) == 1 and (folder / f"checkpoints/toy/step-{int(steps.pop()):08d}").is_dir()
    assert_close(finish(folder, 2, **job), straight, 0)
    assert sample_log(folder, 2) == sample_log(tmp_path / "straight", 2)


def test_world_size_changes_between_restarts(tmp_path: Path) -> None:
    job = {**EXACT, "save_every": 2}
    for world, steps in ((2, 4), (1, 6), (4, 10), (2, 12)):
        changed = finish(tmp_path / "elastic", world, schedule_steps=12, max_steps=steps, **job)
    assert_close(changed, finish(tmp_path / "fixed", 2, **job), 1e-5)


def test_a_flipped_bit_is_found_and_undone(tmp_path: Path) -> None:
    straight = finish(tmp_path / "straight", 2)
    flipped = finish(tmp_path / "flipped", 2, flip=7, check_every=2)
    assert_close(flipped, straight, 0)
    assert [line["step"] for line in read_lines(tmp_path / "flipped/logs/samples-rank0.jsonl")].count(6) == 2
    unsaved = join(start(tmp_path / "unsaved", 2, flip=1, check_every=2, save_every=0))
    assert unsaved == [11, 11]
    told = (tmp_path / "unsaved/stopped-0.txt").read_text()
    assert "rank 1" in told and "connector.0.weight" in told


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_on_one_rank_is_skipped_on_all(tmp_path: Path, where: str) -> None:
    broken = {"steps": [4], "rank": 1, "where": where}
    weights = finish(tmp_path, 2, broken=broken)
    assert all(bool(value.isfinite().all()) for value in weights.values())
    (line,) = read_lines(tmp_path / "logs/skipped_steps.jsonl")
    assert line["step"] == 4 and len(line["ranks"]) == 2 and len(line["ranks"][1]["sample_ids"]) == 4
    assert line["ranks"][0]["sample_ids"] != line["ranks"][1]["sample_ids"]
    assert join(start(tmp_path / "often", 2, broken={"steps": [4, 5, 6], "rank": 0})) == [3, 3]
