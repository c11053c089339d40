"""The loop: accumulation, resumption, non-finite steps, frozen parts."""

from contextlib import suppress
from itertools import islice
from pathlib import Path

import pytest
import torch
from training_toy import FROZEN_ENCODER, ToySteps, build_trainer, last_per_step, read_lines, run

from vlmtrain.training.actions.log import Log
from vlmtrain.training.actions.save import Save
from vlmtrain.training.signals import Signals
from vlmtrain.training.state import weights_hash


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def test_accumulated_equals_full_batch(tmp_path: Path) -> None:
    full = run(tmp_path / "full", dropout=0.0)
    cut = run(tmp_path / "cut", dropout=0.0, accumulate=4)
    for name, value in weights(full).items():
        torch.testing.assert_close(value, weights(cut)[name], atol=1e-5, rtol=0)
    for one, other in zip(
        read_lines(tmp_path / "full/metrics.jsonl"), read_lines(tmp_path / "cut/metrics.jsonl"), strict=True
    ):
        for key in ("loss", "loss/guessing", "accuracy", "gradient_norm"):
            assert one[key] == pytest.approx(other[key], abs=1e-5)


def test_it_learns(tmp_path: Path) -> None:
    run(tmp_path, max_steps=60, lr=0.1)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert 0 <= lines[-1]["data_wait"] <= 1 and lines[-1]["samples_per_second"] > 0


def test_every_step_takes_the_rate_of_its_number_also_after_a_resume(tmp_path: Path) -> None:
    run(tmp_path, max_steps=7, schedule_steps=12)
    trainer = run(tmp_path, max_steps=12)
    schedule = trainer.update.schedule
    rates = [line["learning_rate"] for line in read_lines(tmp_path / "metrics.jsonl")]
    assert rates == [schedule.learning_rate(step) for step in range(12)]


def test_resumed_run_is_bit_identical(tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", ema=True)
    for stop in (4, 7, 12):  # step 3, 6 and 12 are saved; 4 and 7 are lost and done again
        part = build_trainer(tmp_path / "parts", ema=True)
        part.resume()
        part.max_steps = stop
        part.actions = part.actions if stop == 12 else [part.actions[0], part.actions[1], _OnlyAt(3)]
        part.train(Signals())
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(part)[name]), name
    for name, value in straight.update.average.averages.items():
        assert torch.equal(value, part.update.average.averages[name])
    ids = "logs/samples-rank0.jsonl"
    assert last_per_step(read_lines(tmp_path / "straight" / ids)) == last_per_step(read_lines(tmp_path / "parts" / ids))


@pytest.mark.parametrize("dies_after", [4, 8, 11])
def test_a_log_line_tells_of_all_its_steps_also_of_those_before_a_resume(tmp_path: Path, dies_after: int) -> None:
    """Found by the kill test: with checkpoints between log lines, averages were of the steps since the checkpoint."""

    def told(trainer) -> list[dict[str, float]]:
        lines: list[dict[str, float]] = []
        trainer.resume()
        trainer.actions = [Log(5, lambda step, averages: lines.append({"step": step, **averages})), Save(3)]
        with suppress(ValueError):
            trainer.train(Signals())
        return [{key: line[key] for key in line.keys() - {"samples_per_second", "data_wait"}} for line in lines]

    straight = told(build_trainer(tmp_path / "straight"))
    killed = build_trainer(tmp_path / "killed")
    killed.source = _EndsAfter(dies_after, 8)
    told(killed)
    resumed = told(build_trainer(tmp_path / "killed"))
    assert resumed and resumed == straight[-len(resumed) :]
    assert {line["step"] for line in resumed} == {step for step in (5, 10, 12) if step > dies_after // 3 * 3}


class _EndsAfter(ToySteps):
    def __init__(self, last: int, size: int) -> None:
        super().__init__(size)
        self.last = last

    def steps(self, start: int):
        return islice(super().steps(start), self.last - start)


class _OnlyAt:
    """Saves at multiples only, not at the end: what a kill leaves."""

    every = 1

    def __init__(self, multiple: int) -> None:
        self.multiple = multiple

    def __call__(self, trainer) -> None:
        if trainer.progress.step % self.multiple == 0:
            trainer.save()


def test_t23_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    encoder = trainer.model.encoder
    before = weights_hash(encoder)
    trainer.model.train()
    trainer.update.training_step.train()
    assert not any(part.training for part in encoder.modules()) and trainer.model.connector.training
    trainer.train(Signals())
    assert weights_hash(encoder) == before  # running statistics of the batch norm included
    assert all(parameter.grad is None for parameter in encoder.parameters())
    own = {id(parameter) for group in trainer.update.optimizer.param_groups for parameter in group["params"]}
    assert not own & {id(parameter) for parameter in encoder.parameters()}
    files = {path.name for path in (tmp_path / "checkpoints/toy/step-00000012").iterdir()}
    assert "encoder.safetensors" not in files and "connector.safetensors" in files


def test_frozen_encoder_runs_once_per_micro_batch_when_surveyed_or_not(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, accumulate=2)
    batches = next(ToySteps(8, 2).steps(0))
    trainer.update(batches, 0)
    calls = []
    trainer.model.encoder.register_forward_hook(lambda *_: calls.append(1))
    trainer.update(batches, 1)
    assert len(calls) == 2


class _Short(ToySteps):
    def steps(self, start: int):
        return iter([])


def test_data_that_ends_early_is_an_error(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    trainer.source = _Short(8)
    with pytest.raises(ValueError, match="the data ended before step 0 of 12"):
        trainer.train(Signals())


def test_trainable_parameter_without_rate_is_an_error(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    trainer.model.encoder.requires_grad_(True)
    with pytest.raises(ValueError, match=r"not in the optimizer: model\.encoder"):
        type(trainer.update)(
            trainer.accelerator, trainer.update.training_step, trainer.update.optimizer, trainer.update.schedule
        )
    assert FROZEN_ENCODER["encoder"] is None
