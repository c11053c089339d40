"""What the configuration of a run says, and who wins."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlmtrain.config.location import conf_folder, describe, find_groups

Resolve = Callable[..., dict[str, Any]]
EXPERIMENTS = sorted(file.stem for file in (conf_folder() / "experiment").glob("*.yaml"))
SCALES = sorted(file.stem for file in (conf_folder() / "scale").glob("*.yaml"))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_is_right_at_every_scale(experiment: str, scale: str, resolved: Resolve) -> None:
    config = resolved(f"experiment={experiment}", f"scale={scale}")
    assert config["experiment"] == experiment and config["scale"] == scale
    assert config["stages"]
    assert not re.search(r"(?<!\\)\$\{", yaml.safe_dump(config)), "everything is resolved"


GROUPS = find_groups([conf_folder()])
CHOICES = [
    f"{group}={option}"
    for group in ("model/encoder", "model/connector", "model/language_model", "tracker", "distributed", "optimizer")
    for option in GROUPS[group]
]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_option_is_right(choice: str, resolved: Resolve) -> None:
    resolved("experiment=blip2_opt", choice, "stages=[language]", "stages.language.start_from=null")


def test_every_shipped_file_says_what_it_is() -> None:
    assert not [file for options in GROUPS.values() for file in options.values() if not describe(file)]


def test_top_level_values_hold_for_every_stage(resolved: Resolve) -> None:
    config = resolved("experiment=blip2_opt", "trainer.max_steps=7", "optimizer.lr=0.5")
    assert [stage["trainer"]["max_steps"] for stage in config["stages"].values()] == [7, 7]
    assert [stage["optimizer"]["lr"] for stage in config["stages"].values()] == [0.5, 0.5]


@pytest.mark.parametrize("turn", [1, -1])
def test_a_stage_value_wins_over_the_top_level_in_any_order(turn: int, resolved: Resolve) -> None:
    typed = ["trainer.max_steps=7", "stages.language.trainer.max_steps=9"][::turn]
    config = resolved("experiment=blip2_opt", *typed)
    assert [stage["trainer"]["max_steps"] for stage in config["stages"].values()] == [7, 9]


def test_the_command_line_wins_over_scale_and_experiment(resolved: Resolve) -> None:
    config = resolved("experiment=blip2_opt", "scale=paper", "model/encoder=clip_l14")
    assert config["model"]["encoder"]["source"] == "openai/clip-vit-large-patch14"
    assert config["stages"]["language"]["model"]["encoder"] == config["model"]["encoder"]


def test_stages_are_complete(resolved: Resolve) -> None:
    from vlmtrain.config.schema import OptimizerConfig, TrainerConfig, make_defaults

    for stage in resolved("experiment=blip2_opt")["stages"].values():
        assert set(stage["trainer"]) == set(make_defaults(TrainerConfig))
        assert set(stage["optimizer"]) == set(make_defaults(OptimizerConfig))


def test_chosen_stages_are_the_only_ones(resolved: Resolve) -> None:
    config = resolved("experiment=blip2_opt", "stages=representation")
    assert list(config["stages"]) == config["run_stages"] == ["representation"]


def test_an_unselected_stage_need_not_fit_the_chosen_parts(resolved: Resolve) -> None:
    typed = ["experiment=blip2_opt", "model/connector=mlp", "stages=[language]"]
    config = resolved(*typed, "stages.language.start_from=null")
    assert list(config["stages"]) == ["language"]


def test_secrets_stay_references(resolved: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "very secret")
    monkeypatch.setenv("HOME_OF_PHOTOS", "/photos")
    typed = ["experiment=blip2_opt", "tracker=wandb", "tracker.wandb.name=${oc.env:WANDB_API_KEY}"]
    config = resolved(*typed, "data=pairs", "data.path=${oc.env:HOME_OF_PHOTOS}")
    assert config["tracker"]["wandb"]["name"] == "${oc.env:WANDB_API_KEY}"
    assert config["data"]["path"] == "/photos"


def test_the_published_recipe_has_the_published_numbers(resolved: Resolve) -> None:
    stages = resolved("experiment=blip2_opt", "scale=paper")["stages"]
    first, second = stages["representation"], stages["language"]
    assert [stage["trainer"]["max_steps"] for stage in (first, second)] == [250_000, 80_000]
    assert [stage["trainer"]["batch_size"] for stage in (first, second)] == [1680, 1920]
    assert [stage["optimizer"]["min_lr"] for stage in (first, second)] == [1e-5, 5e-5]
    for stage in (first, second):
        optimizer = stage["optimizer"]
        assert (optimizer["lr"], optimizer["warmup"], optimizer["weight_decay"]) == (1e-4, 2000, 0.05)
        assert optimizer["betas"] == [0.9, 0.98]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", ["clip", "pic2word"])
def test_a_model_of_open_clip_takes_the_place_of_the_scales(experiment: str, scale: str, resolved: Resolve) -> None:
    config = resolved(f"experiment={experiment}", f"scale={scale}", "model=open_clip", "model.name=ViT-B-16")
    chosen = config["stages"]["contrastive"]["model"]
    assert chosen == {"_target_": "vlmtrain.models.open_clip.load_open_clip", "name": "ViT-B-16", "checkpoint": None}


def test_parts_of_the_scales_model_can_be_replaced(resolved: Resolve) -> None:
    typed = ["model/encoder=clip_rn50", "model/pooling=mean_query_attention", "model.embedding_width=1024"]
    model = resolved("experiment=clip", "scale=paper", *typed)["stages"]["contrastive"]["model"]
    assert model["pooling"]["_target_"].endswith("MeanQueryAttention") and model["embedding_width"] == 1024
    assert model["text_encoder"]["tokenizer"] == "openai/clip-vit-base-patch32"


def test_a_folder_of_the_user_adds_options(tmp_path: Path, resolved: Resolve) -> None:
    folder = tmp_path / "model" / "encoder"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# Mine.\n_target_: vlmtrain.encoders.hugging_face.HuggingFaceEncoder\nsource: my/vit\n"
    )
    config = resolved("experiment=blip2_opt", "model/encoder=mine", "--config-dir", str(tmp_path))
    assert config["model"]["encoder"]["source"] == "my/vit"


def test_a_missing_config_dir_is_named(resolved: Resolve, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        resolved("experiment=blip2_opt", "--config-dir", str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "path", ["/a b/c", "~/photos", "/a/b=c", "/ä(1)/x", "it's", "/x&y", "s3://a/b", 'say "x"', "a\\b", "photos", "a:b"]
)
def test_paths_are_text_whatever_is_in_them(path: str, resolved: Resolve) -> None:
    assert resolved("experiment=blip2_opt", "data=pairs", f"data.path={path}")["data"]["path"] == path
