"""A part that trains from step N on is frozen in every sense before it, also where a run is killed on either side."""

from pathlib import Path

import pytest
import torch
from training_toy import build_trainer, join, read_lines, run, start

from vlmtrain.config.cross_checks import check_across
from vlmtrain.config.schema import LauncherConfig, StageConfig, list_keys, make_defaults
from vlmtrain.config.typed_values import check_value
from vlmtrain.training.signals import Signals
from vlmtrain.training.state import weights_hash
from vlmtrain.training.thawing import Thawing
from vlmtrain.training.trainer import Trainer

LATER = {
    "encoder": {"from_step": 5, "rate": 0.5},
    "connector": 1.0,
    "connector.0": {"from_step": 7, "rate": 2.0},
    "head": 0.5,
    "scale": 1.0,
}


def test_rates_are_a_function_of_the_step() -> None:
    thawing = Thawing(LATER)
    assert thawing.starts() == [5, 7] and [thawing.phase(step) for step in (0, 4, 5, 6, 7, 99)] == [0, 0, 1, 1, 2, 2]
    assert thawing.at(4)["encoder"] is None and thawing.at(5)["encoder"] == 0.5
    assert thawing.at(6)["connector.0"] is None and thawing.at_the_end()["connector.0"] == 2.0
    assert Thawing({"a": 1.0, "b": None}).at_the_end() == {"a": 1.0, "b": None}


class Watch:
    """What is frozen, step by step."""

    every = 1

    def __init__(self) -> None:
        self.seen: dict[int, tuple[str, bool, bool]] = {}

    def __call__(self, trainer: Trainer) -> None:
        encoder = trainer.model.encoder
        moments = trainer.update.optimizer.state
        has_moments = any(parameter in moments for parameter in encoder.parameters())
        self.seen[trainer.progress.step] = (weights_hash(encoder), encoder.training, has_moments)


def test_t23_before_its_step_it_is_frozen_and_after_it_is_not(tmp_path: Path) -> None:
    trainer, watch = build_trainer(tmp_path, rates=LATER), Watch()
    trainer.actions = [*trainer.actions, watch]
    before = weights_hash(trainer.model.encoder)
    assert not trainer.model.encoder.project.weight.requires_grad
    trainer.train(Signals())
    for step, (found, is_training, has_moments) in watch.seen.items():
        assert (found == before, is_training, has_moments) == (step <= 5, step > 5, step > 5), step
    multiples = {name: group["multiple"] for group in trainer.update.optimizer.param_groups for name in group["names"]}
    assert multiples["encoder.project.weight"] == 0.5 and multiples["connector.0.weight"] == 2.0


@pytest.mark.parametrize("dies_after", [2, 4, 5, 6, 8, 11])
def test_a_killed_run_ends_bit_identical(tmp_path: Path, dies_after: int) -> None:
    straight = run(tmp_path / "straight", ema=True, rates=LATER, save_every=2)
    killed = build_trainer(tmp_path / "killed", ema=True, rates=LATER, save_every=2)
    killed.max_steps = dies_after
    killed.actions = [action for action in killed.actions if type(action).__name__ != "Save"] + [SaveAtEven()]
    killed.train(Signals())
    resumed = run(tmp_path / "killed", ema=True, rates=LATER, save_every=2)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert straight.update.average is not None and resumed.update.average is not None
    for name, value in straight.update.average.averages.items():
        assert torch.equal(value, resumed.update.average.averages[name]), name


class SaveAtEven:
    every = 2

    def __call__(self, trainer: Trainer) -> None:
        if trainer.progress.step % 2 == 0:
            trainer.save()


def test_going_back_behind_the_step_freezes_it_again_as_it_was(tmp_path: Path) -> None:
    straight = run(tmp_path / "straight", rates=LATER)
    trainer = build_trainer(tmp_path / "back", rates=LATER, save_every=4)
    before = weights_hash(trainer.model.encoder)
    trainer.max_steps = 8
    trainer.actions = [SaveOnly(4)]
    trainer.train(Signals())
    assert weights_hash(trainer.model.encoder) != before
    trainer.resume()
    assert trainer.progress.step == 4 and weights_hash(trainer.model.encoder) == before
    watch = Watch()
    trainer.max_steps, trainer.actions = 12, [watch]
    trainer.train(Signals())
    assert watch.seen[5][0] == before and not watch.seen[5][1]
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[name]), name


class SaveOnly:
    every = 1

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, trainer: Trainer) -> None:
        if trainer.progress.step == self.step:
            trainer.save()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_accumulation_changes_nothing(tmp_path: Path, accumulate: int) -> None:
    rates = {**LATER, "encoder": {"from_step": 3, "rate": 0.5}, "encoder.norm": None}
    one = run(tmp_path / "one", dropout=0.0, rates={**rates, "encoder": None})
    other = run(tmp_path / "other", dropout=0.0, rates={**rates, "encoder": None}, accumulate=accumulate)
    for name, value in one.model.named_parameters():
        torch.testing.assert_close(dict(other.model.named_parameters())[name], value, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_two_processes_agree_with_accumulation(tmp_path: Path) -> None:
    """DDP synchronises what has a gradient when it is made: it has to be made again."""
    from safetensors.torch import load_file

    rates = {**LATER, "encoder": None}
    finals = []
    for name, world, accumulate in (("one", 1, 2), ("two", 2, 1)):
        codes = join(start(tmp_path / name, world, rates=rates, accumulate=accumulate, dropout=0.0, check_every=1))
        assert codes == [0] * world
        finals.append(load_file(tmp_path / name / "final.safetensors"))
        assert read_lines(tmp_path / name / "metrics.jsonl")[-1]["step"] == 12
    for name, value in finals[0].items():
        torch.testing.assert_close(finals[1][name], value, atol=1e-5, rtol=0)


def config(trainable: dict[str, object]) -> dict[str, object]:
    stage = {
        "trainer": {"batch_size": 4, "accumulate": 1, "max_steps": 100},
        "optimizer": {"lr": 1e-4, "min_lr": 0.0, "betas": [0.9, 0.98], "warmup": 0},
        "trainable": trainable,
        "start_from": {},
    }
    processes = {"num_processes": 1, "engine": None, "hang_limits": {}}
    launcher = make_defaults(LauncherConfig)
    return {
        "stages": {"one": stage},
        "distributed": processes,
        "launcher": launcher,
        "init_from": None,
        "run_stages": None,
    }


@pytest.mark.parametrize(
    ("trainable", "told"),
    [
        ({"a": 1.0, "b": {"from_step": 100, "rate": 0.1}}, "from_step 100"),
        ({"a": 1.0, "b": {"from_step": 0, "rate": 0.1}}, "from_step 0"),
        ({"a": 1.0, "b": {"from_step": 2.5, "rate": 0.1}}, "from_step 2.5"),
        ({"a": 1.0, "b": {"from_step": 9, "rate": 0}}, "rate 0"),
        ({"a": 1.0, "b": {"step": 9, "rate": 1.0}}, "got"),
        ({"a": None, "b": {"from_step": 9, "rate": 1.0}}, "frozen at first"),
        ({"a": None, "b": None}, "every part is frozen"),
    ],
)
def test_what_makes_no_sense_is_a_fault_with_its_place(trainable: dict[str, object], told: str) -> None:
    (fault,) = check_across(config(trainable))  # type: ignore[arg-type]
    assert fault.path.startswith("stages.one.trainable") and told in fault.problem


def test_the_schema_takes_both_spellings() -> None:
    entry = list_keys(StageConfig)["trainable"]
    assert not list(check_across(config(LATER)))  # type: ignore[arg-type]
    assert not list(check_value("trainable", LATER, entry))
    assert list(check_value("trainable", {"a": "soon"}, entry))
