"""One step: clipping, synchronisation, and what a rank is never asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_toy import OBJECTIVES, Guessing, ToySteps, build_trainer

from vlmtrain.batch import Batch
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.training.update import Update


def norms_seen(update: Update) -> list[Tensor]:
    """Fills with the norm of the gradient that the optimizer gets, one entry a step."""
    seen: list[Tensor] = []
    parameters = [parameter for group in update.optimizer.param_groups for parameter in group["params"]]

    def look(*_: object) -> None:
        seen.append(torch.nn.utils.get_total_norm([value.grad for value in parameters if value.grad is not None]))

    update.optimizer.register_step_pre_hook(look)
    return seen


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_gradient_is_clipped_once_over_the_whole_step(tmp_path: Path, accumulate: int) -> None:
    """LAVIS never clips, OpenFlamingo clips every micro-step."""
    trainer = build_trainer(tmp_path, accumulate=accumulate, dropout=0.0)
    update = replace(trainer.update, gradient_clip_norm=0.01)
    seen = norms_seen(update)
    result = update(next(ToySteps(8, accumulate).steps(0)), 0)
    assert float(result.gradient_norm) > 0.1, "told as it was before clipping"
    assert float(seen[0]) == pytest.approx(0.01, rel=1e-3)


def test_without_a_limit_the_gradient_stays_as_it_is(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, dropout=0.0)
    update = replace(trainer.update, gradient_clip_norm=None)
    seen = norms_seen(update)
    result = update(next(ToySteps(8).steps(0)), 0)
    torch.testing.assert_close(seen[0], result.gradient_norm)


def test_ranks_synchronise_with_the_last_micro_batch_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAVIS lets DDP reduce the gradients of every micro-step.  DDP decides by where forward and backward run."""
    trainer = build_trainer(tmp_path, accumulate=4)
    engine, is_holding = trainer.update.engine, [False]
    events: list[tuple[str, bool]] = []

    @contextmanager
    def syncing(is_last: bool) -> Iterator[None]:
        is_holding[0] = not is_last
        yield
        is_holding[0] = False

    backward = engine.backward
    monkeypatch.setattr(engine, "syncing", syncing)
    monkeypatch.setattr(engine, "backward", lambda loss: (events.append(("backward", is_holding[0])), backward(loss)))
    trainer.update.training_step.register_forward_hook(lambda *_: events.append(("forward", is_holding[0])))
    trainer.update(next(trainer.source.steps(0)), 0)
    assert events == [("forward", True), ("backward", True)] * 3 + [("forward", False), ("backward", False)]


class Weighted(Guessing):
    """Weights of a hundredth: their sum over a step is below 1."""

    def counts(self, batch: Batch) -> dict[str, float]:
        return {"guessing": 0.01 * batch.text.supervised}

    def forward(self, model: torch.nn.Module, context: Context) -> Loss:
        loss = super().forward(model, context)
        return Loss({"guessing": 0.01 * loss.totals["guessing"]}, loss.metrics)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_counts_may_be_sums_of_weights_below_one(tmp_path: Path, accumulate: int) -> None:
    """What is divided by is the sum over the global batch, however small it is."""
    results = []
    for name, objective, cuts in (("plain", Guessing(), 1), ("weighted", Weighted(), accumulate)):
        trainer = build_trainer(tmp_path / name, accumulate=cuts, dropout=0.0, objective=objective)
        results.append(trainer.update(next(trainer.source.steps(0)), 0))
    torch.testing.assert_close(results[1].loss(), results[0].loss(), atol=1e-6, rtol=0)
    torch.testing.assert_close(results[1].gradient_norm, results[0].gradient_norm, atol=1e-6, rtol=0)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("objective", ["guessing", "contrastive", "momentum"])
def test_a_single_process_trains_without_a_process_group(tmp_path: Path, objective: str, accumulate: int) -> None:
    """LAVIS asks for the rank in forward, of contrast above all, so that one process cannot train (issues 537, 353)."""
    assert not torch.distributed.is_initialized()
    trainer = build_trainer(tmp_path, accumulate=accumulate, objective=OBJECTIVES[objective](), ema=True)
    assert trainer.update(next(trainer.source.steps(0)), 0).is_applied
    assert not torch.distributed.is_initialized()
