"""What a command line asks of a sweep, found right before anything is trained."""

from pathlib import Path

import pytest
import yaml

from vlmtrain.config.faults import ConfigError
from vlmtrain.config.overrides import read_arguments
from vlmtrain.config.sweep_values import Range
from vlmtrain.main import VERBS, main
from vlmtrain.sweeps.asked import Asked, read_asked, read_typed, write_asked
from vlmtrain.sweeps.plans import make_plan


def read(*typed: str) -> Asked:
    return read_typed(read_arguments(["sweep", *typed], list(VERBS)))


def test_m_is_a_sweep_without_a_file() -> None:
    typed = read_arguments(["-m", "experiment=clip", "seed=0,1"], list(VERBS))
    assert typed.verb == "sweep" and not typed.faults
    assert read_typed(typed).sweep.settings == {
        "seed_0": ["experiment=clip", "seed=0"], "seed_1": ["experiment=clip", "seed=1"]
    }  # fmt: skip


def test_what_is_typed_wins_over_the_file() -> None:
    asked = read("+sweep=learning_rate", "optimizer.lr=1e-3,2e-3", "seed=7", "trainer.num_workers=0")
    assert list(asked.sweep.settings) == ["lr_0.001__seed_7", "lr_0.002__seed_7"]
    assert all("trainer.num_workers=0" in overrides for overrides in asked.sweep.settings.values())


def test_a_few_settings_of_a_file_keep_what_is_adjusted_for_them() -> None:
    settings = read("+sweep=connectors", "model/connector=mlp,perceiver").sweep.settings
    assert list(settings) == ["mlp", "perceiver"]
    assert "model.connector.num_latents=16" in settings["perceiver"]
    with pytest.raises(ValueError, match="'mlp' is no setting of the sweep"):
        read("+sweep=connectors", "model/connector=linear")


def test_the_same_command_means_the_same_folder_and_another_one_another() -> None:
    typed = ["+sweep=learning_rate", "optimizer.lr=1e-3"]
    first = read(*typed, "seed=0").folder
    harmless = ["launcher=slurm", "trainer.num_workers=0", "--by=prefix/test/caption_accuracy"]
    assert first == read(*typed, "seed=0", *harmless).folder
    assert first.parent == Path("runs/sweeps") and first.name.startswith("learning_rate-")
    assert first != read(*typed, "seed=1").folder
    assert read(*typed, "seed=0", "run_dir=here").folder == Path("here")
    search = read("+sweep=learning_rate_search").folder
    assert search != read("+sweep=learning_rate_search", "optimizer.lr=interval(1e-4,1e-2)").folder


def test_what_was_asked_is_kept_and_read_again() -> None:
    for name, typed in {"learning_rate": ["seed=0,1", "optimizer.lr=1e-3"], "learning_rate_search": []}.items():
        asked = read(f"+sweep={name}", f"run_dir={name}", *typed)
        write_asked(asked, asked.sweep, make_plan(asked.sweep).num_trials)
        assert read_asked(Path(name)) == asked
    other = read("+sweep=learning_rate_search", "optimizer.lr=interval(1e-4,1e-2)", "run_dir=learning_rate_search")
    assert other.sweep.space["optimizer.lr"] == Range(1e-4, 1e-2)
    with pytest.raises(ValueError, match="learning_rate_search searched another space"):
        write_asked(other, other.sweep, 12)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ([], "nothing varies.*vlmtrain sweep \\+sweep=connectors.*Sweeps: connectors"),
        (["experiment=clip"], "nothing varies"),
        (["+sweep=conectors"], "did you mean connectors"),
        (["experiment=clip", "optimizer.lr=1e-3,-1"], "optimizer.lr"),
        (["experiment=clip", "model/encoder=vit_scenes,vit_scens"], "did you mean vit_scenes"),
        (["experiment=clip", "optimizer.lr=interval(1e-4,1e-2)"], "a range has no combinations"),
        (["+sweep=learning_rate", "--by=language/test/loss"], "there is no stage language.*Stages: prefix"),
        (["+sweep=learning_rate_search", "stages.prefix.trainer.evaluate_every=0"], "evaluate_every"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_trained(typed: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){told}"):
        read(*typed)


def test_a_wrong_search_is_told(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    file = {
        "common": ["experiment=prefix_lm"],
        "vary": {"seed": [0, 1]},
        "metric": "prefix/test/loss",
        "search": {"_target_": "vlmtrain.sweeps.tree_parzen.TreeParzen", "num_trial": 3},
    }
    (tmp_path / "sweep" / "mine.yaml").write_text(yaml.safe_dump(file))
    with pytest.raises(ConfigError, match=r"did you mean search\.num_trials"):
        read("+sweep=mine", f"--config-dir={tmp_path}")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["plan", "--at-once=2", "experiment=clip"], "--at-once means nothing to plan; it belongs to sweep"),
        (["plan", "-m", "experiment=clip", "seed=0,1"], "-m means nothing to plan"),
        (["sweep", "--html=x"], "--html means nothing to sweep; it belongs to compare"),
        (["sweep", "--at-once=none", "experiment=clip", "seed=0,1"], "--at-once none: how many"),
        (["sweep", "+sweep=learning_rate", "--fresh"], "--fresh means nothing to a sweep"),
        (["compare", "lr=1"], "there is no run in lr=1"),
        (["compare", "nowhere"], "there is no run in nowhere"),
        (["compare"], "there is no run in nothing"),
    ],
)
def test_options_belong_to_verbs(typed: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(typed) == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_wandb_gets_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "+sweep=learning_rate_search", "--wandb-yaml"]) == 0
    told = yaml.safe_load(capsys.readouterr().out)
    assert told["method"] == "bayes" and told["metric"] == {"name": "prefix/test/loss", "goal": "minimize"}
    log = {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1}
    assert told["parameters"] == {"optimizer.lr": log, "optimizer.warmup": {"values": [0, 15, 60]}}
    assert told["command"][:4] == ["${env}", "${interpreter}", "-m", "vlmtrain.main"]
    assert told["command"][-2:] == ["tracker=wandb", "${args_no_hyphens}"] and "experiment=prefix_lm" in told["command"]
    assert main(["sweep", "+sweep=learning_rate", "optimizer.lr=1e-3", "--wandb-yaml"]) == 0
    grid = yaml.safe_load(capsys.readouterr().out)
    assert grid["method"] == "grid" and grid["parameters"]["seed"] == {"values": [0, 1]}
    assert main(["sweep", "+sweep=connectors", "model/connector=mlp", "--wandb-yaml"]) == 2
    assert "cannot be said to it" in " ".join(capsys.readouterr().err.split())
