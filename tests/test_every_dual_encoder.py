"""T15, T54: image tower, its pooling and the text tower are groups of their own, and combine freely in a dual encoder.

Every file of conf/model/encoder/, conf/model/pooling/ and conf/model/text_encoder/ is found by itself.  Parts are built
as shapes (meta device).
"""

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmtrain.batch import VisualFeatures
from vlmtrain.config.build import build
from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.models.capabilities import EmbedsBoth, EmbedsBothWithBias
from vlmtrain.models.dual_encoder import DualEncoder

FOLDER = Path(__file__).parents[1] / "conf" / "model"
ENCODERS, POOLINGS, TEXT_ENCODERS = (
    sorted(path.stem for path in (FOLDER / group).glob("*.yaml")) for group in ("encoder", "pooling", "text_encoder")
)


@functools.cache
def node(model: str, **chosen: str) -> dict[str, Any]:
    typed = [f"model={model}", *(f"model/{group}={name}" for group, name in chosen.items())]
    found: dict[str, Any] = compose(["experiment=clip", *typed]).config["model"]
    return found


@functools.cache
def encoder(name: str) -> Any:
    with torch.device("meta"):
        return build(node("dual_encoder", encoder=name)["encoder"])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", ENCODERS)
def test_t54_every_image_tower_has_its_poolings_or_names_what_does_not_fit(name: str, pooling: str) -> None:
    sees, chosen = encoder(name), node("dual_encoder", pooling=pooling)
    with torch.device("meta"):
        try:
            pools = build(chosen["pooling"])(sees.width, sees.patches_per_tile)
        except ValueError as refusal:
            assert str(sees.width) in str(refusal) and "num_heads" in str(refusal)
            return
        vectors = pools(torch.empty(2, sees.patches_per_tile, sees.width))
        assert vectors.shape == (2, sees.width)
        projects = build(chosen["visual_projection"])
        width = sees.width if "Unchanged" in chosen["visual_projection"]["_target_"] else 24
        assert projects(sees.width, width)(vectors).shape == (2, width)


@pytest.mark.parametrize("model", ["dual_encoder", "sigmoid_dual_encoder"])
@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_t54_every_text_tower_fits_every_dual_encoder(name: str, model: str) -> None:
    """Where embedded tokenizers and weights suffice, whole; else its size."""
    with torch.device("meta"):
        chosen = node(model, text_encoder=name)
        reads, projects = build(chosen["text_encoder"]), build(chosen["text_projection"])
        assert projects(reads.width, 24).weight.shape == (24, reads.width)
    if "scenes" not in name:
        return
    both = build(chosen)
    text = both.layout().write(_captions(), both.placeholders_per_item)
    assert both.embed_text(text).shape == (2, 128)
    assert isinstance(both, EmbedsBoth) and isinstance(both, EmbedsBothWithBias) == (model == "sigmoid_dual_encoder")


def _captions() -> list[list[Any]]:
    from vlmtrain.layout import Text, Visual

    return [[Visual(), Text("a small red circle")], [Visual(), Text("two blue stars")]]


@pytest.mark.parametrize(
    ("typed", "patches", "width"),
    [
        (["scale=paper"], 50, 768),
        (
            [
                "scale=paper",
                "model/encoder=clip_rn50",
                "model/pooling=mean_query_attention",
                "model.embedding_width=1024",
            ],
            49,
            2048,
        ),
        (["model/encoder=vit_small"], 65, 128),
        (["model/encoder=resnet50"], 49, 2048),
    ],
    ids=["vit_b32", "rn50", "tiny", "timm"],
)
def test_t15_a_vit_or_a_resnet_may_be_the_image_tower_and_both_towers_learn(
    typed: list[str], patches: int, width: int
) -> None:
    composed = compose(["experiment=clip", *typed])
    check(composed)
    stage = composed.config["stages"]["contrastive"]
    assert stage["trainable"]["encoder"] and stage["trainable"]["text_encoder"]
    with torch.device("meta"):
        model = build(stage["model"])
        features = VisualFeatures(torch.empty(2, patches, width), [1, 1], [1, 1])
        assert model.encoder.width == width and model.encoder.patches_per_tile == patches
        assert model.embed_visual(features).shape == (2, 1, stage["model"]["embedding_width"])


def test_a_class_token_that_is_not_there_is_named() -> None:
    chosen = node("dual_encoder", encoder="clip_rn50", pooling="class_token")
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"ClassToken reads a class token.*ClipResNet gives none"),
    ):
        build(chosen)


def test_a_locked_tower_runs_without_gradient_and_the_rest_learns() -> None:
    """LiT: the same model, `encoder: null`."""
    from vlmtrain.batch import VisualBatch
    from vlmtrain.training.trainability import set_trainability

    config = compose(["experiment=lit"]).config["stages"]["locked"]
    model = build(config["model"])
    assert isinstance(model, DualEncoder)
    trained = set_trainability(model, config["trainable"])
    model.train()
    assert not model.encoder.training and not [name for name in trained if name.startswith("encoder.")]
    visual = VisualBatch(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), [1, 1], [1, 1])
    features = model.encode(visual)
    assert not features.patches.requires_grad
    text = model.layout().write(_captions(), model.placeholders_per_item)
    (model.embed_visual(features).sum() + model.embed_text(text).sum() + model.similarity_scale()).backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == set(trained)


def test_the_temperature_is_learned_up_to_its_bound_comes_back_and_can_be_frozen() -> None:
    from vlmtrain.training.trainability import set_trainability

    model = build(node("dual_encoder"))
    model.log_scale.data.fill_(9.0)  # learned far beyond
    scale = model.similarity_scale()
    assert scale.item() == 100.0
    scale.backward()
    assert model.log_scale.grad.item() == pytest.approx(100.0), "a step down is a step away from the bound"
    model.log_scale.data -= 0.6
    assert model.similarity_scale().item() == pytest.approx(100.0 * math.exp(-0.6))
    rates = dict.fromkeys(("encoder", "text_encoder", "visual_projection", "text_projection"), 1.0)
    assert "log_scale" not in set_trainability(model, {**rates, "log_scale": None})
    with pytest.raises(ValueError, match=r"temperature 0\.001"):
        build({**node("dual_encoder"), "temperature": 0.001})
