"""The fifteen mistakes of the error quiz, and fifteen more: each answer names the cause and the fix."""

from collections.abc import Callable
from pathlib import Path

import pytest

RUN = ["experiment=blip2_opt", "scale=small", "data=pairs", "data.path=photos"]

# typed -> what the answer must contain
QUIZ = [
    ("optimizer.lrr=1e-3", ["optimizer.lrr", "optimizer.lr=0.001"]),
    ("optimizer.learning_rate=1e-3", ["optimizer.learning_rate", "optimizer.lr=0.001"]),
    ("model/encoder=siglip_b_16", ["model/encoder", "siglip_b_16", "clip_b16"]),
    ("encodr=clip_l14", ["encodr", "model/encoder=clip_l14"]),
    ("trainer.max_step=10", ["trainer.max_step", "trainer.max_steps=10"]),
    ("experiment=blip2_opp", ["experiment", "blip2_opp", "did you mean blip2_opt"]),
    ("scale=papers", ["scale", "did you mean paper"]),
    ("encoder=clip_l14", ["encoder", "model/encoder=clip_l14"]),
    ("optimizer.lr=1e-3x", ["optimizer.lr", "1e-3x", "a number above 0"]),
    ("trainer.precision=bf61", ["trainer.precision", "bf61", "did you mean bf16"]),
    ("batch_size=16", ["batch_size", "trainer.batch_size"]),
    ("model.encoder.image_sz=64", ["model.encoder.image_sz", "model.encoder.image_size"]),
    ("data.path", ["data.path", "data.path=VALUE"]),
    ("data.pth=x", ["data.pth", "data.path"]),
    ("optim.lr=1", ["optim", "optimizer.lr=1"]),
    # fifteen more
    ("trainer.batch_size=-4", ["trainer.batch_size", "-4", "at least 1"]),
    ("trainer.batch_size=1.5", ["trainer.batch_size", "1.5", "a whole number"]),
    ("trainer.compile=yess", ["trainer.compile", "yess", "true or false"]),
    ("trainer.accumulate=7", ["trainer.batch_size", "7 micro-batches", "trainer.batch_size=126"]),
    ("trainer.max_steps=10", ["warmup", "1000 steps", "10 steps", "3 percent"]),
    ("optimizer.min_lr=1", ["min_lr", "above lr"]),
    ("optimizer.warmup='3 epochs'", ["warmup", "3 epochs", "3 percent"]),
    ("optimizer.betas=[0.9]", ["betas", "[0.9]", "[0.9,0.98]"]),
    ("stages=[langage]", ["langage", "did you mean language"]),
    ("stages.langage.trainer.max_steps=5", ["stages.langage", "did you mean language"]),
    ("stages=[language]", ["representation", "init_from=RUN_FOLDER"]),
    ("init_from=nowhere", ["init_from", "nowhere", "config.yaml"]),
    ("init_from=embedded:blip2_scene", ["init_from", "did you mean embedded:blip2_scenes"]),
    ("init_from=embedded:opt_scenes", ["init_from", "holds no run", "config.yaml"]),
    ("distributed.num_processes=2", ["distributed", "distributed=ddp"]),
    ("model.encoder.source=embedded:vit_scene", ["embedded:vit_scene", "did you mean embedded:vit_scenes"]),
    ("model.encoder._target_=os.system", ["os.system", "--allow os"]),
    ("optimizer.lr=1e-3,1e-4", ["optimizer.lr", "several values", "[1e-3,1e-4]"]),
    ("model/langage_model=opt_125m", ["model/langage_model", "model/language_model=opt_125m"]),
    ("optimizer.lr=nan", ["optimizer.lr", "a number above 0"]),
    ("stages.language.form.promt=a", ["promt", "stages.language.form.prompt"]),
    ("stages.language.transform.flp=true", ["flp", "stages.language.transform.flip"]),
    ("data.path=null", ["data.path", "text"]),
    ("stages.language.model.language_model.max_tokens=9", ["no _target_", "type model.language_model.max_tokens="]),
    ("model.encoder=null", ["model.encoder", "a VisionEncoder"]),
    ("model.encoder=5", ["model.encoder", "a VisionEncoder"]),
    (
        "model.language_model={_target_: vlmtrain.connectors.mlp.MLPConnector, encoder_width: 1, patches_per_tile: 1, "
        "language_width: 1}",
        ["model.language_model", "makes no LanguageModel"],
    ),
]


@pytest.mark.parametrize(("typed", "expected"), QUIZ, ids=[typed for typed, _ in QUIZ])
def test_a_mistake_is_answered_with_cause_and_fix(
    typed: str, expected: list[str], faults_of: Callable[..., str]
) -> None:
    answer = faults_of(*RUN, typed)
    assert not [word for word in expected if word not in answer], answer
    assert "+" not in answer, "never advise a dead key"


SPELLINGS = [
    ["+experiment=blip2_opt"],
    ["++experiment=blip2_opt"],
    ["experiment=blip2_opt"],
    ["--experiment=blip2_opt"],
    ["--experiment", "blip2_opt"],
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=" ".join)
def test_every_spelling_of_an_experiment_means_the_same(spelling: list[str], resolved: Callable[..., dict]) -> None:
    assert resolved(*spelling, *RUN[1:]) == resolved(*RUN)


@pytest.mark.parametrize(
    "spelling",
    [["+optimizer.lr=0.003"], ["++optimizer.lr=3e-3"], ["--optimizer.lr", "3e-3"], ["--optimizer.lr=0.003"]],
    ids=" ".join,
)
def test_every_spelling_of_a_value_means_the_same(spelling: list[str], resolved: Callable[..., dict]) -> None:
    assert resolved(*RUN, *spelling)["optimizer"]["lr"] == 3e-3


def test_all_faults_are_told_at_once(faults_of: Callable[..., str]) -> None:
    answer = faults_of(*RUN, "optimizer.lrr=1", "trainer.precision=x", "model/encoder=y", "batch_size=2")
    assert all(word in answer for word in ("optimizer.lrr", "trainer.precision", "model/encoder", "batch_size"))
    assert len(answer.splitlines()) == 4


def test_a_key_without_experiment_says_which_to_choose(faults_of: Callable[..., str]) -> None:
    assert "experiment=blip2_opt" in faults_of("scale=small", "data=pairs", "data.path=x")


def test_a_fault_of_a_file_names_file_and_line(tmp_path, faults_of: Callable[..., str]) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - /experiment/blip2_opt\ntrainer:\n  max_step: 3\n"
    )
    answer = faults_of("experiment=mine", *RUN[1:], "--config-dir", str(tmp_path))
    assert "trainer.max_step" in answer
    assert "mine.yaml:5" in answer


def test_a_reference_that_leads_nowhere_is_named(faults_of: Callable[..., str]) -> None:
    answer = faults_of(*RUN, "model/connector=linear")
    assert "stages.representation.model.qformer" in answer
    assert "model.connector.qformer" in answer


def write_experiment(folder: Path, text: str) -> list[str]:
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text(text)
    return ["--config-dir", str(folder), "experiment=mine"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "# @package _global_\nseed: !!python/object/apply:os.system ['touch pwned']\n",
            ["mine.yaml", "line 2", "tag"],
        ),
        ("# @package _global_\nseed: [1\n", ["mine.yaml", "line"]),
        (
            "# @package _global_\ndefaults:\n  - override /model/encoder: clip_b61\n",
            ["model/encoder", "clip_b61", "did you mean clip_b16", "mine.yaml"],
        ),
    ],
)
def test_a_broken_file_is_named(
    text: str, expected: list[str], tmp_path: Path, faults_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = faults_of(*write_experiment(tmp_path, text))
    assert not [word for word in expected if word not in answer], answer
    assert not Path("pwned").exists()


def test_hydras_own_keys_are_refused(faults_of: Callable[..., str]) -> None:
    assert "Hydra" in faults_of(*RUN, "hydra.searchpath=[pkg://os]")


def test_what_a_config_cannot_allow_itself(tmp_path: Path, faults_of: Callable[..., str]) -> None:
    text = "# @package _global_\ndefaults:\n  - /experiment/blip2_opt\n"
    text += "allow: [os]\ndata: {_target_: os.system, command: x}\n"
    answer = faults_of(*write_experiment(tmp_path, text))
    assert "allow" in answer and "'os.system' may not be named" in answer
