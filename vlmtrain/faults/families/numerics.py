"""Numbers that are none, on one rank, and moments that must not go to the wrong weights."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vlmtrain.faults.bench import STAGE, Bench, Loud, Silent
from vlmtrain.faults.injection import Injection
from vlmtrain.faults.row import Case, Row
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer, optimizer_tensors, restore_optimizer
from vlmtrain.training.saved import groups_of, read_group
from vlmtrain.training.stops import NonFiniteTraining
from vlmtrain.training.trainability import set_trainability

NAN, INFINITY, SPIKE = math.nan, math.inf, 1e9


def not_finite(bench: Bench) -> list[Case]:
    """At random steps; three in a row; and a spike, which is a number like any other and only clipped."""

    def once(place: str, value: float, step: int) -> None:
        run = bench.start(bench.folder(), 2, ("trainer.log_every=1",), Injection(place, "spoil", step, step, 1, value))
        assert (code := run.wait()) == 0, f"exit code {code}: {run.said()[-300:]}"
        require_finite(run.folder)
        (line,) = [json.loads(each) for each in (run.folder / "logs" / STAGE / "skipped_steps.jsonl").open()]
        assert line["step"] == step and all(rank["sample_ids"] for rank in line["ranks"]), line
        rows = [json.loads(each) for each in (run.folder / "metrics.jsonl").open()]
        told = {row["step"]: row["metrics"] for row in rows}[step + 1]
        assert told["skipped_steps"] == 1
        if place == "loss" and math.isfinite(float(told["loss"])):
            raise Silent(f"the loss of the skipped step is told as {told['loss']}")

    def often() -> None:
        run = bench.start(bench.folder(), 2, (), Injection("loss", "spoil", 11, 13, 1, NAN))
        assert (code := run.wait()) == NonFiniteTraining.exit_code, f"exit code {code}"
        require_finite(run.folder)
        bench.finish_as_undisturbed(run.folder, 2)

    def spike() -> None:
        run = bench.start(bench.folder(), 2, (), Injection("loss", "spoil", 7, 7, 1, SPIKE))
        assert (code := run.wait()) == 0, f"exit code {code}"
        require_finite(run.folder)

    kinds = [("loss", NAN), ("loss", INFINITY), ("gradient", NAN)]
    tries = [(*kinds[number % 3], bench.chance.randint(1, 22)) for number in range(bench.times(3, 20))]
    single = [
        Case(f"{value} in the {place} of step {step}", partial(once, place, value, step))
        for place, value, step in tries
    ]
    return [*single, Case("three in a row", often), Case("a spike of 1e9", spike)]


def require_finite(folder: Path) -> None:
    for checkpoint in folder.glob("checkpoints/*/step-*"):
        for group in groups_of(checkpoint):
            tensors = read_group(checkpoint, group)
            bad = [name for name, value in tensors.items() if not bool(value.float().isfinite().all())]
            if bad:
                raise Silent(f"{checkpoint} was published with {bad[0]} not finite")


class Parts(nn.Module):
    """Two parts of one shape, one of another, and words."""

    def __init__(self, words: int = 10, side: int = 4, rank: int | None = None) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.connector = nn.Linear(4, 4)
        self.head = nn.Linear(side, 4)
        self.words = nn.Embedding(words, 4)
        self.adapter = nn.Sequential(nn.Linear(4, rank), nn.Linear(rank, 4)) if rank else nn.Identity()


ALL = frozenset({"encoder", "connector", "head", "words", "adapter"})
Stage = tuple[Callable[[], Parts], frozenset[str]]
TRANSITIONS: dict[str, tuple[Stage, Stage]] = {
    "nothing": ((Parts, ALL), (Parts, ALL)),
    "a swap of the same shape": ((Parts, frozenset({"encoder"})), (Parts, frozenset({"connector"}))),
    "a swap and back": ((Parts, frozenset({"connector", "head"})), (Parts, frozenset({"encoder", "head"}))),
    "a swap of another shape": ((Parts, frozenset({"encoder"})), (Parts, frozenset({"words"}))),
    "more trains": ((Parts, frozenset({"connector"})), (Parts, ALL)),
    "one more trains": ((Parts, frozenset({"connector", "head"})), (Parts, frozenset({"connector", "head", "words"}))),
    "less trains": ((Parts, ALL), (Parts, frozenset({"connector"}))),
    "a part of another width": ((Parts, ALL), (lambda: Parts(side=6), ALL)),
    "more words": ((Parts, ALL), (lambda: Parts(words=12), ALL)),
    "fewer words": ((lambda: Parts(words=12), ALL), (Parts, ALL)),
    "adapters on": ((Parts, frozenset({"head"})), (lambda: Parts(rank=2), frozenset({"head", "adapter"}))),
    "adapters off": ((lambda: Parts(rank=2), frozenset({"head", "adapter"})), (Parts, frozenset({"head"}))),
}  # fmt: skip


def transitions(bench: Bench) -> list[Case]:
    """What trains changes; each moment has to follow the name of its weight, or begin anew and be told of."""

    def attempt(before: Stage, after: Stage) -> None:
        saved = _after_a_step(*before)
        model, optimizer = _built(*after)
        with _heard("vlmtrain.training.optimizer") as plan:
            restored = restore_optimizer(optimizer, saved)
        now, shapes = optimizer_tensors(optimizer), {name: value.shape for name, value in model.named_parameters()}
        fitting = {
            key: value
            for key, value in saved.items()
            if (name := key.rsplit("::", 1)[0]) in {*restored.kept, *restored.new}
            and value.shape in (shapes[name], torch.Size())
            and saved[f"{name}::exp_avg"].shape == shapes[name]
        }
        if now.keys() != fitting.keys() or any(not torch.equal(now[key], fitting[key]) for key in now):
            raise Silent(f"moments of {sorted(now.keys() ^ fitting.keys())[:3] or 'other weights'} went astray")
        told = {*restored.kept, *restored.new}
        assert told == {name for name, value in model.named_parameters() if value.requires_grad}
        if restored.new or restored.dropped:
            assert plan and f"{len(restored.kept)} kept; {len(restored.new)} start anew" in plan[0], plan
        lost = {key.rsplit("::", 1)[0] for key in saved} - set(restored.kept)
        if set(restored.dropped) != lost:
            raise Loud(f"dropped, and not told so: {sorted(lost - set(restored.dropped))[:3]}")

    return [Case(name, partial(attempt, *pair)) for name, pair in TRANSITIONS.items()]


@contextmanager
def _heard(name: str) -> Iterator[list[str]]:
    """What a logger says, which nobody else hears meanwhile."""
    logger, said = logging.getLogger(name), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


def _built(make: Callable[[], Parts], trained: frozenset[str]) -> tuple[Parts, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = make()
    parts = [name for name, part in model.named_children() if list(part.parameters())]
    rates = {name: 1.0 if name in trained else None for name in parts}
    return model, build_optimizer(model, set_trainability(model, rates), AdamWChoices())


def _after_a_step(make: Callable[[], Parts], trained: frozenset[str]) -> dict[str, Tensor]:
    model, optimizer = _built(make, trained)
    for number, parameter in enumerate(model.parameters()):
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, float(number + 1))
    optimizer.step()
    return {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}


ROWS = (
    Row(
        "F36",
        3,
        "NaN, infinity or a spike on one rank",
        "all skip the step and say which samples; three in a row stop; never published; the loss is told as NaN",
        not_finite,
    ),
    Row("F37", 3, "what trains changes", "moments follow names; what is kept, new and dropped is told", transitions),
)
