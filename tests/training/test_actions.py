"""What is done after a step."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_toy import Broken, Guessing, ToySteps, build_trainer, read_lines

from vlmtrain.training.actions.evaluate import Evaluate
from vlmtrain.training.actions.log import Log
from vlmtrain.training.signals import Signals
from vlmtrain.training.stops import NonFiniteTraining


def test_evaluation_sees_eval_mode_and_averaged_weights(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, ema=True)
    seen: list[int] = []
    head = trainer.model.head["out"]

    def evaluate(step: int) -> None:
        assert not trainer.model.connector.training and not torch.is_grad_enabled()
        assert torch.equal(head.weight, trainer.update.average.averages["head.out.weight"])
        seen.append(step)

    trainer.actions = [Evaluate(5, evaluate)]
    trainer.train(Signals())
    assert seen == [5, 10, 12]
    assert trainer.model.connector.training and not trainer.model.encoder.training
    assert not torch.equal(head.weight, trainer.update.average.averages["head.out.weight"])


def test_evaluation_does_not_change_training(tmp_path: Path) -> None:
    trainers = [build_trainer(tmp_path / name, dropout=0.3) for name in ("with", "without")]
    trainers[0].actions = [Evaluate(2, lambda step: torch.manual_seed(step))]
    for trainer in trainers:
        trainer.train(Signals())
    for one, other in zip(trainers[0].model.parameters(), trainers[1].model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_zero_means_at_the_end_only(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    lines: list[int] = []
    trainer.actions = [Log(0, lambda step, averages: lines.append(step))]
    trainer.train(Signals())
    assert lines == [12]


def test_a_log_line_is_the_average_since_the_last(tmp_path: Path) -> None:
    every: dict[int, list[dict[str, float]]] = {}
    for interval in (1, 4):
        trainer = build_trainer(tmp_path / str(interval))
        lines = every.setdefault(interval, [])
        trainer.actions = [Log(interval, lambda step, averages, lines=lines: lines.append(averages))]
        trainer.train(Signals())
    assert every[4][0]["loss"] == pytest.approx(sum(line["loss"] for line in every[1][:4]) / 4)
    assert every[4][0]["loss"] == pytest.approx(0.7 * every[4][0]["loss/guessing"])


class Cutting(ToySteps):
    """At step 1 one text of every micro-batch is too long, at step 4 two are."""

    def steps(self, start: int):
        for step, batches in enumerate(super().steps(start), start=start):
            cut = {1: 1, 4: 2}.get(step, 0)
            yield [replace(batch, text=replace(batch.text, truncated=cut)) for batch in batches]


def test_cut_texts_are_counted_in_the_log_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = build_trainer(tmp_path, max_steps=6, accumulate=2)
    lines: list[float] = []
    trainer.source = Cutting(8, 2)
    trainer.actions = [Log(3, lambda step, averages: lines.append(averages["truncated_texts"]))]
    trainer.train(Signals())
    assert lines == [2.0, 4.0]
    told = [record.message for record in caplog.records if "max_tokens" in record.message]
    assert told == [
        "step 1: 2 of 8 texts are longer than max_tokens and were cut; truncated_texts in metrics.jsonl counts them"
    ]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_non_finite_step_leaves_the_weights_and_is_logged_as_it_is(tmp_path: Path, where: str) -> None:
    trainer = build_trainer(tmp_path, objective=Broken([2, 5], where=where))
    before: list[torch.Tensor] = []
    trainer.actions = [*trainer.actions, _Snapshot(before)]
    trainer.train(Signals())
    assert torch.equal(before[1], before[2]) and not torch.equal(before[2], before[3])
    assert bool(trainer.model.connector[0].weight.isfinite().all())
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert math.isnan(lines[2]["loss"] if where == "loss" else lines[2]["gradient_norm"])
    assert lines[2]["skipped_steps"] == 1 and not math.isnan(lines[3]["loss"])
    skipped = read_lines(tmp_path / "logs/skipped_steps.jsonl")
    assert [line["step"] for line in skipped] == [2, 5]
    assert skipped[0]["ranks"][0]["sample_ids"] == [f"s{16 + row}" for row in range(8)]


class _Snapshot:
    every = 1

    def __init__(self, taken: list[torch.Tensor]) -> None:
        self.taken = taken

    def __call__(self, trainer) -> None:
        self.taken.append(trainer.model.connector[0].weight.detach().clone())


def test_three_non_finite_steps_in_a_row_stop_even_across_a_restart(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, objective=Broken([4, 5, 6]))
    with pytest.raises(NonFiniteTraining, match="3 steps in a row") as stopped:
        trainer.train(Signals())
    assert stopped.value.exit_code == 3
    again = build_trainer(tmp_path, objective=Guessing())
    assert again.resume() and again.progress.step == 6 and again.progress.skipped_in_a_row == 2


def test_a_spike_does_not_break_the_weights(tmp_path: Path) -> None:
    class Spike(Guessing):
        def forward(self, model, context):
            loss = super().forward(model, context)
            factor = 1e9 if context.batch.seed == 3 else 1.0
            return replace(loss, totals={"guessing": loss.totals["guessing"] * factor})

    trainer = build_trainer(tmp_path, objective=Spike())
    trainer.train(Signals())
    assert all(bool(parameter.isfinite().all()) for parameter in trainer.model.parameters())
    assert not (tmp_path / "logs/skipped_steps.jsonl").exists()


@pytest.mark.slow
def test_compiled_step_computes_the_same(tmp_path: Path) -> None:
    plain, compiled = (build_trainer(tmp_path / name, max_steps=3, dropout=0.0) for name in ("plain", "compiled"))
    compiled.update.training_step.compile()
    for trainer in (plain, compiled):
        trainer.train(Signals())
    for one, other in zip(plain.model.parameters(), compiled.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
