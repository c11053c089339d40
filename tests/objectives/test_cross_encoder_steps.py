"""Cross encoders under the objectives: a step cut into micro-batches is one step; terms switch one by one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from vlmtrain.batch import Batch
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.models.cross_encoder import CrossEncoder
from vlmtrain.models.mixed_encoder_decoder import MixedEncoderDecoder
from vlmtrain.nn.mixed_text import MixedText
from vlmtrain.nn.pooling import Mean
from vlmtrain.nn.split_text import SplitText
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.language_modeling import LanguageModeling
from vlmtrain.objectives.matching import ImageTextMatching
from vlmtrain.objectives.mixture import Mixture

SPLIT = partial(SplitText, width=16, text_depth=1, fusion_depth=1, num_heads=2)
MIXED = partial(MixedText, width=16, depth=2, num_heads=2)


@pytest.fixture(params=["split", "mixed"])
def model(request: pytest.FixtureRequest, tokenizer_folder: str, make_model: Callable[..., nn.Module]) -> CrossEncoder:
    encoder = make_model(frozen_encoder=False).encoder
    assert isinstance(encoder, VisionEncoder)
    kind, text = (CrossEncoder, SPLIT) if request.param == "split" else (MixedEncoderDecoder, MIXED)
    torch.manual_seed(0)
    built = kind(encoder, text, tokenizer_folder, embedding_width=8, pooling=Mean)
    for parameter in built.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return built


def objective_of(model: CrossEncoder, **weights: float) -> Mixture:
    parts: dict[str, Any] = {
        "contrastive": Contrastive(weight=weights.get("contrastive", 1.0)),
        "matching": ImageTextMatching(weight=weights.get("matching", 1.0)),
    }
    if isinstance(model, MixedEncoderDecoder):
        parts["captioning"] = LanguageModeling(weight=weights.get("captioning", 1.0), label_smoothing=0.1)
    return Mixture(parts)


@pytest.mark.parametrize("size", [4, 2, 1])
def test_t14_a_step_cut_into_micro_batches_is_one_step(
    model: CrossEncoder, size: int, batch_of: Callable[..., Batch], step_of: Callable[..., Any]
) -> None:
    batch, objective = batch_of(8), objective_of(model)
    whole, pieces = step_of(model, objective, batch), step_of(model, objective, batch, size)
    for term, total in whole.totals.items():
        assert abs(total - pieces.totals[term]) < 1e-5 * len(batch)
    assert whole.gradients.keys() == pieces.gradients.keys()
    for name, gradient in whole.gradients.items():
        assert (gradient - pieces.gradients[name]).abs().max() < 1e-5, name


def test_t57_each_term_trains_what_it_reads_and_weight_0_takes_it_away(
    model: CrossEncoder, batch_of: Callable[..., Batch], step_of: Callable[..., Any]
) -> None:
    batch = batch_of(4)
    only = {
        "contrastive": {"visual_projection.weight", "text_projection.weight", "log_temperature"},
        "matching": {"match_head.weight"},
        "captioning": {"text.head.dense.weight"},
    }
    terms = [term for term in only if term != "captioning" or isinstance(model, MixedEncoderDecoder)]
    for chosen in terms:
        off = {term: 0.0 for term in terms if term != chosen}
        step = step_of(model, objective_of(model, **off), batch)
        assert set(step.totals) == {chosen}
        for term in terms:
            if term == chosen:
                assert only[term] <= step.gradients.keys()
            else:
                assert not only[term] & {name for name, value in step.gradients.items() if value.any()}


def test_a_batch_of_one_has_a_loss(model: CrossEncoder, batch_of: Callable[..., Batch]) -> None:
    """Nothing wrong to draw: the pair is asked about by itself, and contrast among one is 0."""
    batch = batch_of(1)
    loss = objective_of(model)(model, Context(model.encode(batch.visual), batch))
    assert loss.totals["contrastive"].abs() < 1e-6 and all(total.isfinite() for total in loss.totals.values())


def test_images_are_projected_once_for_all_passes(
    model: CrossEncoder, batch_of: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Matching and captioning read the same keys and values; LAVIS makes them for every pass."""
    batch, calls = batch_of(4), []
    remember = model.text.remember
    monkeypatch.setattr(model.text, "remember", lambda *patches: calls.append(1) or remember(*patches))
    objective_of(model)(model, Context(model.encode(batch.visual), batch))
    assert len(calls) == 1
