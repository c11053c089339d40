"""Models as shapes: what a stage's section builds, and what it must not."""

from typing import Any, NoReturn

import pytest
from torch import nn

from vlmtrain.config.compose import compose
from vlmtrain.config.stored import flatten
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.shapes import build_on_meta


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return compose(["experiment=blip2_opt"]).config


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a language model is built")


def test_t21_the_first_stage_of_the_experiment_builds_no_language_model(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CausalLanguageModel, "__init__", refuse)
    model = build_on_meta(config["stages"]["representation"])
    assert not [name for name, _ in model.named_modules() if "language_model" in name]
    with pytest.raises(AssertionError, match="a language model is built"):
        build_on_meta(config["stages"]["language"])


def test_models_are_shapes_with_the_right_parts_frozen(config: dict[str, Any]) -> None:
    for section in config["stages"].values():
        model: nn.Module = build_on_meta(section)
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (section["trainable"][name.split(".")[0]] is not None), name


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_the_first_stage_starts_from_nothing_but_its_encoder_and_bert(scale: str) -> None:
    """LAVIS' pre-training silently loads the released checkpoint (issues 149 and 257)."""
    config = compose(["experiment=blip2_opt", f"scale={scale}", "data=pairs", "data.path=photos"]).config
    stage = config["stages"]["representation"]
    assert config["init_from"] is None and not stage["start_from"]
    texts = {key for key, value in flatten(stage["model"]).items() if isinstance(value, str) and "_target_" not in key}
    assert texts - {"encoder.source", "encoder.name"} == {"tokenizer", "bert"}
