"""T55: the five strategies of the surveys are choices of the configuration, and each runs, the last without a step."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vlmtrain.stage
from vlmtrain import run
from vlmtrain.config.compose import compose
from vlmtrain.config.stored import flatten, write_config
from vlmtrain.stage import Stage

STRATEGIES = {  # experiment, and a class that makes it what it is called
    "contrastive": ("clip", "vlmtrain.objectives.contrastive.Contrastive"),
    "prefix_language_modeling": ("prefix_lm", "vlmtrain.language_models.prefix.PrefixLanguageModel"),
    "fusing_by_cross_attention": ("flamingo", "vlmtrain.fusions.gated_cross_attention.GatedCrossAttention"),
    "masked_language_modeling": ("mlm_itm", "vlmtrain.objectives.masked_language_modeling.MaskedLanguageModeling"),
    "matching": ("mlm_itm", "vlmtrain.objectives.matching.ImageTextMatching"),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_is_a_choice(strategy: str) -> None:
    experiment, what_makes_it = STRATEGIES[strategy]
    assert what_makes_it in flatten(compose([f"experiment={experiment}"]).config["stages"]).values()


@pytest.mark.parametrize("experiment", sorted({experiment for experiment, _ in STRATEGIES.values()}))
def test_it_takes_a_step(experiment: str, train_experiment: Callable[..., Path]) -> None:
    told = [json.loads(file.read_text()) for file in (train_experiment(experiment, 1) / "results").glob("*.json")]
    assert told and all(stage["steps"] == 1 and stage["trainable_parameters"] > 0 for stage in told)


def untrained(folder: Path, *overrides: str) -> dict[str, Any]:
    few = [f"data.{name}=8" for name in ("num_train", "num_test", "num_compositional")]
    typed = [
        "experiment=clip",
        "trainer.max_steps=0",
        "trainer.batch_size=8",
        f"data.folder={folder / 'scenes'}",
        "data.num_processes=1",
    ]
    evaluation = "stages.contrastive.evaluation={retrieval: {_target_: vlmtrain.evaluation.retrieval.Retrieval}}"
    return compose([*typed, *few, evaluation, *overrides]).config


def test_no_training_takes_no_step_has_no_optimizer_and_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing trains, and an optimizer was made")

    monkeypatch.setattr(vlmtrain.stage, "build_optimizer", refuse)
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(untrained(tmp_path), folder)
    run.train(folder)
    told = json.loads((folder / "results" / "contrastive.json").read_text())
    assert (told["steps"], told["samples"], told["trainable_parameters"]) == (0, 0, 0)
    assert told["evaluation"]["test/num_candidates"] == 8
    assert not (folder / "checkpoints").exists()
    assert json.loads((folder / "summary.json").read_text())["state"] == "done"


def test_no_training_leaves_every_weight_as_it_was_built(tmp_path: Path) -> None:
    config = untrained(tmp_path)
    stage = Stage("contrastive", config["stages"]["contrastive"], run.open_run(config, tmp_path))
    before = {name: value.clone() for name, value in stage.model.state_dict().items()}
    assert stage.multiples == {} and not any(parameter.requires_grad for parameter in stage.model.parameters())
    assert stage.evaluate().metrics
    assert all(value.equal(before[name]) for name, value in stage.model.state_dict().items())
