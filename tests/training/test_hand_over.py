"""Later stages get what they ask for of the checkpoints of earlier ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_toy import FROZEN_ENCODER, ToyModel, build_trainer

from vlmtrain.training.hand_over import EVERYTHING, load_part, take_over
from vlmtrain.training.optimizer import optimizer_tensors
from vlmtrain.training.signals import Signals
from vlmtrain.training.trainer import Trainer


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a finished run: steps 9 and 12."""
    folder = tmp_path_factory.mktemp("run")
    build_trainer(folder, ema=True).train(Signals())
    return folder


def test_t26_stage_hand_over(published: Path) -> None:
    checkpoint = published / "checkpoints/toy/step-00000012"
    connector = ToyModel().connector
    report = load_part(checkpoint, "connector", connector)
    assert sorted(report.matched) == sorted(connector.state_dict()) and not report.missing and not report.unexpected
    saved = load_file(checkpoint / "connector.safetensors")
    for name, value in connector.state_dict().items():
        assert torch.equal(value, saved[f"connector.{name}"])


def test_t26_all_of_a_stage_at_once_own_parameters_included(published: Path) -> None:
    checkpoint = published / "checkpoints/toy/step-00000012"
    model = ToyModel()
    model.scale.data.fill_(-1.0)
    report = load_part(checkpoint, EVERYTHING, model)
    assert (
        not report.unexpected
        and "scale" in report.matched
        and all(name.startswith("encoder.") for name in report.missing)
    )
    for part in ("connector", "head", "scale"):
        for name, value in load_file(checkpoint / f"{part}.safetensors").items():
            assert torch.equal(model.state_dict()[name], value), name


def test_t26_reports_what_does_not_match(published: Path) -> None:
    checkpoint = published / "checkpoints/toy/step-00000012"
    into = nn.ModuleDict({"embed": nn.Embedding(17, 8), "new": nn.Linear(2, 2)})
    report = load_part(checkpoint, "head", into)
    assert report.matched == ["embed.weight"]
    assert report.missing == ["new.bias", "new.weight"] and report.unexpected == ["out.bias", "out.weight"]
    inner = nn.Linear(8, 17)
    assert load_part(checkpoint, "head.out", inner).matched == ["weight", "bias"]


@pytest.mark.parametrize(
    ("part", "into", "told"),
    [
        ("connector", nn.ModuleDict({"other": nn.Linear(8, 8)}), "no tensor of connector matches ModuleDict"),
        ("encoder", nn.Linear(8, 8), "holds no encoder; it holds connector, ema, head"),
        ("head.out", nn.Linear(8, 18), r"weight has shape \[17, 8\] there and \[18, 8\]"),
    ],
)
def test_t26_fails_when_nothing_or_the_wrong_shape_matches(
    published: Path, part: str, into: nn.Module, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        load_part(published / "checkpoints/toy/step-00000012", part, into)


def test_t26_a_resumed_second_stage_keeps_weights_and_moments(published: Path, tmp_path: Path) -> None:
    """The hand-over comes before the resumption at every start, and must not undo what the second stage learned."""
    first_stage = published / "checkpoints/toy/step-00000012"
    rates = {**FROZEN_ENCODER, "head": None}

    def second_stage(folder: Path, max_steps: int) -> Trainer:
        trainer = build_trainer(folder, max_steps, rates=rates, schedule_steps=6)
        handed = load_part(first_stage, "connector", trainer.model.connector)
        assert handed.matched and not handed.missing
        return trainer

    straight = second_stage(tmp_path / "straight", 6)
    straight.train(Signals())
    second_stage(tmp_path / "parts", 3).train(Signals())
    resumed = second_stage(tmp_path / "parts", 6)
    given = resumed.model.connector[0].weight.detach().clone()
    assert resumed.resume() and resumed.progress.step == 3
    assert not torch.equal(resumed.model.connector[0].weight, given), "it went on from its own step 3"
    assert optimizer_tensors(resumed.update.optimizer).keys() == optimizer_tensors(straight.update.optimizer).keys()
    resumed.train(Signals())
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    moments = optimizer_tensors(resumed.update.optimizer)
    assert moments and all(
        torch.equal(value, moments[name]) for name, value in optimizer_tensors(straight.update.optimizer).items()
    )


def test_the_manifest_is_read_once_for_all_files(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, opened = Path.read_bytes, []

    def noted(path: Path) -> bytes:
        opened.append(path.name)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    load_part(published / "checkpoints/toy/step-00000012", EVERYTHING, ToyModel())
    assert opened.count("manifest.json") == 1


ORIGINS = {"connector": {"stage": "toy", "part": "connector"}}


def test_the_first_run_that_has_a_checkpoint_counts(published: Path, tmp_path: Path) -> None:
    model = ToyModel()
    reports = take_over(model, ORIGINS, "later", tmp_path, published)
    saved = load_file(published / "checkpoints/toy/step-00000012/connector.safetensors")
    assert reports["connector"].matched and torch.equal(model.connector[0].weight, saved["connector.0.weight"])
    with pytest.raises(
        ValueError, match=r"later starts from stage toy, of which there is no checkpoint in .*init_from="
    ):
        take_over(model, ORIGINS, "later", tmp_path, None)


def test_a_stage_does_not_begin_with_what_it_saved_itself(published: Path, tmp_path: Path) -> None:
    """blip2_flan_t5 takes the Q-Former of stage `language` from another run into a stage `language` where it stays
    frozen, which no checkpoint holds: once it had saved, it could not be resumed."""
    build_trainer(tmp_path, 3).train(Signals())
    resumed, first = ToyModel(), ToyModel()
    take_over(resumed, ORIGINS, "toy", tmp_path, published)
    take_over(first, ORIGINS, "toy", tmp_path / "empty", published)
    assert torch.equal(resumed.connector[0].weight, first.connector[0].weight)
    take_over(resumed, ORIGINS, "later", tmp_path, published)
    assert not torch.equal(resumed.connector[0].weight, first.connector[0].weight)
