"""fp16: small gradients survive, what overflows is skipped and no fault, and a resumed run knows its scale."""

import json
from pathlib import Path

import pytest
import torch
from toy_comparison import JOB, STEP, assert_same_run
from training_toy import Broken, Guessing, build_trainer, join, read_lines, run, start

from vlmtrain.training.loss_scale import LARGEST, SMALLEST, DynamicLossScale, LossScale, build_loss_scale
from vlmtrain.training.signals import Signals
from vlmtrain.training.stops import NonFiniteTraining
from vlmtrain.training.trainer import Trainer

FP16 = {"precision": "fp16", "dropout": 0.0}


def losses(folder: Path, key: str = "loss") -> list[float]:
    return [line[key] for line in read_lines(folder / "metrics.jsonl")]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in trainer.model.named_parameters()}


def test_it_halves_doubles_after_enough_good_steps_in_a_row_and_keeps_to_its_bounds() -> None:
    scale = DynamicLossScale(start=8.0, patience=3)
    told = [scale.follow(is_finite, step) for step, is_finite in enumerate([True, True, False, True, True, True])]
    assert told == [False, False, True, False, False, False] and scale.value == 8.0
    assert [scale.follow(True, 6), scale.state()] == [False, {"value": 8.0, "good_steps": 1}]
    lowest, highest = DynamicLossScale(2 * SMALLEST), DynamicLossScale(LARGEST, patience=1)
    assert [lowest.follow(False, 0), lowest.follow(False, 1), lowest.value] == [True, False, SMALLEST]
    assert not highest.follow(True, 0) and highest.value == LARGEST


def test_it_goes_on_from_what_it_kept_and_from_the_start_where_nothing_was_kept() -> None:
    scale, other = DynamicLossScale(8.0, patience=4), DynamicLossScale(2.0, patience=4)
    for step in range(6):
        scale.follow(True, step)
    other.restore(json.loads(json.dumps(scale.state())))
    assert other.state() == {"value": 16.0, "good_steps": 2}
    other.restore(LossScale().state())
    assert other.state() == {"value": 2.0, "good_steps": 0}


def test_only_fp16_is_scaled() -> None:
    scale = build_loss_scale("bf16")
    assert not scale.follow(False, 0) and scale.value == build_loss_scale("fp32").value == 1.0
    assert build_loss_scale("fp16").value == 2.0**16


def test_scaling_rounds_nothing(tmp_path: Path) -> None:
    """In fp32 arithmetic a scaled run and one that is not have the same bits: norms, clipping and weights."""
    plain = run(tmp_path / "plain", ema=True)
    scaled = run(tmp_path / "scaled", ema=True, loss_scale=(2.0**13, 5))
    assert scaled.update.loss_scale.value == 2.0**15
    assert losses(tmp_path / "plain", "gradient_norm") == losses(tmp_path / "scaled", "gradient_norm")
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(scaled)[name]), name


def test_fp16_learns_what_fp32_learns(tmp_path: Path) -> None:
    run(tmp_path / "fp32", dropout=0.0)
    trainer = build_trainer(tmp_path / "fp16", **FP16, loss_scale=(2.0**10, 99))
    seen: list[torch.dtype] = []
    trainer.model.connector[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer.train(Signals())
    assert set(seen) == {torch.float16} and trainer.model.encoder.project.weight.dtype == torch.float16
    assert trainer.model.connector[0].weight.dtype == torch.float32
    for key in ("loss", "gradient_norm"):
        assert losses(tmp_path / "fp16", key) == pytest.approx(losses(tmp_path / "fp32", key), rel=0.02), key


def test_without_a_scale_small_gradients_vanish(tmp_path: Path) -> None:
    """What it is for: a term that weighs little has no gradient in fp16 alone."""

    class Light(Guessing):
        def weights(self) -> dict[str, float]:
            return {"guessing": 1e-8}

    moved = {}
    for scale in (1, 2**24):
        trainer = run(tmp_path / str(scale), 2, **FP16, objective=Light(), loss_scale=(scale, 9))
        moments = trainer.update.optimizer.state[trainer.model.connector[0].weight]
        moved[scale] = float(moments["exp_avg"].abs().sum())
    assert moved[1] == 0 and moved[2**24] > 0


def test_what_overflows_is_skipped_and_no_fault(tmp_path: Path) -> None:
    trainer = run(tmp_path, 12, **FP16, loss_scale=(2.0**22, 3))
    norms = losses(tmp_path, "gradient_norm")
    skipped = [index for index, norm in enumerate(norms) if norm == float("inf") or norm != norm]
    assert skipped[:4] == [0, 1, 2, 3], "more in a row than max_skipped_steps allows faults"
    assert skipped != list(range(len(skipped))), "it rises again, until something overflows again"
    assert not (tmp_path / "logs/skipped_steps.jsonl").exists() and trainer.progress.skipped_in_a_row == 0
    assert losses(tmp_path, "skipped_steps") == [float(index in skipped) for index in range(12)]
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_a_gradient_that_stays_broken_stops_the_run_at_the_lowest_scale(tmp_path: Path) -> None:
    broken = Broken(list(range(12)), where="gradient")
    trainer = build_trainer(tmp_path, **FP16, objective=broken, loss_scale=(4 * SMALLEST, 9))
    with pytest.raises(NonFiniteTraining, match=r"3 steps in a row, the last one step 4.*bf16 in place of fp16"):
        trainer.train(Signals())
    assert [line["step"] for line in read_lines(tmp_path / "logs/skipped_steps.jsonl")] == [2, 3, 4]


def test_a_loss_that_is_broken_is_a_fault_at_once_and_says_nothing_of_the_scale(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, **FP16, objective=Broken([2, 3, 4]), loss_scale=(2.0**10, 9))
    with pytest.raises(NonFiniteTraining, match="the last one step 4"):
        trainer.train(Signals())
    assert trainer.update.loss_scale.state() == {"value": 2.0**10, "good_steps": 2}


def test_a_resumed_run_is_bit_identical_with_its_scale_and_its_good_steps(tmp_path: Path) -> None:
    job = {**FP16, "dropout": 0.1, "ema": True, "loss_scale": (2.0**18, 4)}
    straight = run(tmp_path / "straight", schedule_steps=12, **job)
    for stop in (3, 6, 9, 12):
        part = run(tmp_path / "parts", stop, schedule_steps=12, **job)
    assert part.update.loss_scale.state() == straight.update.loss_scale.state()
    assert losses(tmp_path / "parts", "gradient_norm") == losses(tmp_path / "straight", "gradient_norm")
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(part)[name]), name


def test_checkpoints_from_before_there_was_a_scale_load(tmp_path: Path) -> None:
    run(tmp_path, 3)
    folder = tmp_path / "checkpoints/toy/step-00000003"
    progress = json.loads((folder / "progress.json").read_bytes())
    assert progress.pop("loss_scale") == {}
    (folder / "progress.json").write_text(json.dumps(progress))
    assert build_trainer(tmp_path).checkpoints.state.restore(folder).loss_scale == {}


def test_two_ranks_in_fp16_equal_one_process(tmp_path: Path) -> None:
    job = {**JOB, "precision": "fp16", "loss_scale": (2.0**10, 2)}
    assert join(start(tmp_path / "alone", 1, **job)) == [0]
    assert join(start(tmp_path / "two", 2, accumulate=2, **job)) == [0, 0]
    assert_same_run(tmp_path / "two", tmp_path / "alone", 2e-3)
    kept = [
        json.loads((tmp_path / each / STEP / "progress.json").read_bytes())["loss_scale"] for each in ("two", "alone")
    ]
    assert kept[0] == kept[1] == {"value": 2.0**13, "good_steps": 0}


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    assert join(start(folder, 2, engine="ddp", **OVERFLOWING)) == [0, 0]
    return folder


OVERFLOWING = {
    **JOB,
    **{"precision": "fp16", "max_steps": 6, "loss_scale": (2.0**16, 99)},
    "broken": {"steps": [4], "rank": 1, "where": "gradient"},
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fsdp2", "fsdp2_offload", "zero1", "zero2", "zero2_offload", "zero3"])
def test_every_engine_skips_what_overflows_and_goes_on_as_ddp_does(
    engine: str, overflowing: Path, tmp_path: Path
) -> None:
    """The first steps overflow on all ranks, the fifth on one."""
    assert join(start(tmp_path, 2, engine=engine, **OVERFLOWING)) == [0, 0]
    skipped = losses(overflowing, "skipped_steps")
    assert skipped[0] == skipped[4] == 1 and skipped[3] == skipped[5] == 0
    assert losses(tmp_path, "skipped_steps") == skipped
    assert losses(tmp_path) == pytest.approx(losses(overflowing), abs=1e-3)
    kept = [json.loads((each / STEP / "progress.json").read_bytes()) for each in (tmp_path, overflowing)]
    assert kept[0]["loss_scale"] == kept[1]["loss_scale"] and kept[0]["skipped_in_a_row"] == 0
    for name in (index for index, was in enumerate(skipped) if not was):
        norms = [losses(each, "gradient_norm")[name] for each in (tmp_path, overflowing)]
        assert norms[0] == pytest.approx(norms[1], rel=2e-3)
