"""What each term brings of the gradient: the right numbers, and a step that is what it would have been."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from training_toy import ENGINES, Guessing, ToySteps, build_trainer

from vlmtrain.batch import Batch
from vlmtrain.objectives.base import Context, Loss
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.scheduled import Scheduled
from vlmtrain.training.gradient_shares import GradientShares
from vlmtrain.training.signals import Signals


class Twice(Guessing):
    """The same loss under another name and weight."""

    def weights(self) -> dict[str, float]:
        return {"twice": 1.4}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"twice": batch.text.supervised}

    def forward(self, model: nn.Module, context: Context) -> Loss:
        return Loss({"twice": super().forward(model, context).totals["guessing"]})


def two_terms() -> Mixture:
    return Mixture({"once": Guessing(), "twice": Twice()})


def test_shares_are_the_norms_of_the_terms_own_gradients() -> None:
    module = nn.Linear(2, 1, bias=False)
    x, y = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0])
    nothing = torch.zeros(())
    found = GradientShares(1).measure({"x": module(x).sum(), "y": module(y).sum(), "none": nothing}, module)
    shares = {name: float(share) for name, (share, count) in found.items() if count == 1}
    assert shares == pytest.approx({"gradient_share/x": 0.75, "gradient_share/y": 0.25, "gradient_share/none": 0.0})
    assert module.weight.grad is None


def test_terms_without_any_gradient_share_nothing() -> None:
    found = GradientShares(1).measure({"x": torch.zeros(()), "y": torch.ones(())}, nn.Linear(1, 1))
    assert [float(share) for share, _ in found.values()] == [0.0, 0.0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_step_is_what_it_would_be(tmp_path: Path, accumulate: int) -> None:
    """With dropout, whose random numbers go on as if nobody had asked."""
    weights = []
    for name, shares in (("with", GradientShares(2)), ("without", None)):
        trainer = build_trainer(tmp_path / name, accumulate=accumulate, objective=two_terms(), dropout=0.1)
        update = replace(trainer.update, gradient_shares=shares)
        steps = ToySteps(8, accumulate).steps(0)
        told = [update(next(steps), step).metrics for step in range(4)]
        weights.append([value.clone() for value in trainer.model.parameters()])
        for step, metrics in enumerate(told):
            found = {key: float(pair[0]) for key, pair in metrics.items() if key.startswith("gradient_share/")}
            if name == "with" and step % 2 == 0:
                assert found.keys() == {"gradient_share/once", "gradient_share/twice"}
                assert sum(found.values()) == pytest.approx(1.0)
            else:
                assert found == {}
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_they_are_logged_and_follow_a_schedule(tmp_path: Path) -> None:
    objective = Mixture({"once": Guessing(), "twice": Scheduled(Twice(), [[0, 0.0], [2, 1.0]])})
    trainer = build_trainer(tmp_path, max_steps=3, objective=objective, dropout=0.0)
    trainer.update = replace(trainer.update, gradient_shares=GradientShares(1))
    trainer.train(Signals())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["gradient_share/twice"] for row in rows] == pytest.approx([0.0, 0.5, 2 / 3], rel=1e-3)


@pytest.mark.parametrize("engine", ["fsdp2", "zero2"])
def test_other_engines_are_refused_with_the_way_out(tmp_path: Path, engine: str) -> None:
    update = build_trainer(tmp_path).update
    with pytest.raises(ValueError, match=r"gradient_shares_every is 5, and under \w+ every backward .*=ddp or single"):
        replace(update, engine=ENGINES[engine](), gradient_shares=GradientShares(5))
