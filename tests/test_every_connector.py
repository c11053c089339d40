"""Every file of conf/model/connector/ keeps the contract of a connector.  A new file is found by itself."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmtrain.batch import VisualFeatures
from vlmtrain.config.build import build
from vlmtrain.config.compose import compose
from vlmtrain.connectors.base import Connector
from vlmtrain.fusions.base import Fusion

CONNECTORS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / "model" / "connector").glob("*.yaml"))
ENCODER_WIDTH, PATCHES, LANGUAGE_WIDTH = 12, 17, 20
FIXED_LENGTH = [
    "conv_abstractor",
    "instructed_qformer",
    "perceiver",
    "perceiver_idefics2",
    "qformer",
    "transformer_mapper",
]


@functools.cache
def node(name: str, part: str = "connector") -> dict[str, Any]:
    chosen: dict[str, Any] = compose([f"model/connector={name}"]).config["model"][part]
    return chosen


def make(name: str, patches: int = PATCHES) -> tuple[Connector, int]:
    """The connector between an encoder of width 12 and a language model of width 20, and the width of its tokens.

    One that does not project may refuse: naming both widths, and then taking equal ones.
    """
    torch.manual_seed(0)
    made = build(node(name))
    try:
        connector, width = made(ENCODER_WIDTH, patches, LANGUAGE_WIDTH), LANGUAGE_WIDTH
    except ValueError as refusal:
        assert str(ENCODER_WIDTH) in str(refusal) and str(LANGUAGE_WIDTH) in str(refusal)
        connector, width = made(ENCODER_WIDTH, patches, ENCODER_WIDTH), ENCODER_WIDTH
    assert isinstance(connector, Connector)
    return connector.eval(), width


def features(tiles_per_item: list[int], patches: int = PATCHES, device: str = "cpu") -> VisualFeatures:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(sum(tiles_per_item), patches, ENCODER_WIDTH, generator=generator)
    return VisualFeatures(values.to(device), tiles_per_item, [len(tiles_per_item)])


@pytest.mark.parametrize("name", CONNECTORS)
def test_it_makes_as_many_tokens_as_it_promises(name: str) -> None:
    (connector, width), tiles = make(name), [1, 2, 1, 5]
    tokens = connector(features(tiles))
    assert tokens.tokens_per_item == [connector.tokens_per_item(count) for count in tiles]
    assert tokens.embeddings.shape == (sum(tokens.tokens_per_item), width)
    assert tokens.items_per_sample == [4]


@pytest.mark.parametrize("name", CONNECTORS)
def test_as_shapes_it_makes_as_many_tokens(name: str) -> None:
    with torch.device("meta"):
        connector, width = make(name)
    assert all(tensor.is_meta for tensor in [*connector.parameters(), *connector.buffers()])
    tokens = connector(features([1, 2], device="meta"))
    assert tokens.embeddings.is_meta and tokens.embeddings.shape == (sum(tokens.tokens_per_item), width)


@pytest.mark.parametrize("name", CONNECTORS)
def test_gradient_reaches_the_patches_and_every_parameter(name: str) -> None:
    (connector, _), visual = make(name), features([1, 1])
    visual.patches.requires_grad_()
    connector(visual).embeddings.square().sum().backward()
    assert visual.patches.grad is not None and visual.patches.grad.abs().sum() > 0
    without = [label for label, parameter in connector.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("name", CONNECTORS)
def test_without_an_item_there_is_no_token_and_every_gradient_is_zero(name: str) -> None:
    """So that a rank whose texts have no image takes part in the step as the others do."""
    connector, width = make(name)
    tokens = connector(features([]))
    assert tokens.embeddings.shape == (0, width) and tokens.tokens_per_item == []
    if not list(connector.parameters()):
        return  # nothing to train
    tokens.embeddings.sum().backward()
    grads = {label: parameter.grad for label, parameter in connector.named_parameters()}
    assert not [label for label, grad in grads.items() if grad is None or grad.abs().sum() != 0]


@pytest.mark.parametrize("name", CONNECTORS)
def test_items_do_not_see_each_other(name: str) -> None:
    connector, _ = make(name)
    both, visual = features([1, 1]), features([1, 1])
    visual.patches[1] += 1.0
    kept = connector.tokens_per_item(1)
    torch.testing.assert_close(connector(both).embeddings[:kept], connector(visual).embeddings[:kept])
    assert not torch.allclose(connector(both).embeddings[kept:], connector(visual).embeddings[kept:])


@pytest.mark.parametrize("name", CONNECTORS)
def test_an_item_becomes_the_same_whatever_else_is_in_the_batch(name: str) -> None:
    (connector, _), tiles = make(name), [1, 3, 2, 1]
    together = features(tiles)
    found = connector(together)
    parts = zip(together.patches.split(tiles), found.embeddings.split(found.tokens_per_item), tiles, strict=True)
    for patches, embeddings, count in parts:
        alone = connector(VisualFeatures(patches, [count], [1]))
        torch.testing.assert_close(alone.embeddings, embeddings)


@pytest.mark.parametrize("name", CONNECTORS)
def test_in_evaluation_it_is_a_function_of_its_input(name: str) -> None:
    connector, _ = make(name)
    assert torch.equal(connector(features([1, 2])).embeddings, connector(features([1, 2])).embeddings)


@pytest.mark.parametrize("name", CONNECTORS)
def test_t38_padded_patches_change_nothing_or_are_refused(name: str) -> None:
    (connector, _), visual, real = make(name), features([1, 2]), PATCHES - 4
    mask = (torch.arange(PATCHES) < real).expand(3, -1)
    try:
        found = connector(replace(visual, patch_mask=mask)).embeddings
    except ValueError as refusal:
        assert type(connector).__name__ in str(refusal) and "model/connector=perceiver" in str(refusal)
        return
    without = replace(visual, patches=visual.patches[:, :real])
    torch.testing.assert_close(found, connector(without).embeddings)
    visual.patches[:, real:] *= 1000
    torch.testing.assert_close(connector(replace(visual, patch_mask=mask)).embeddings, found)


@pytest.mark.parametrize("name", CONNECTORS)
def test_in_bf16_it_makes_nearly_the_same(name: str) -> None:
    (connector, _), visual = make(name), features([1, 2])
    exact = connector(visual).embeddings
    rounded = connector.bfloat16()(replace(visual, patches=visual.patches.bfloat16())).embeddings
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.03 * exact.norm()  # eight bits of mantissa, some layers deep


@pytest.mark.parametrize("low_format", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONNECTORS)
def test_under_autocast_it_reads_an_encoder_in_low_precision(name: str, low_format: torch.dtype) -> None:
    (connector, width), visual = make(name), features([1, 2])
    exact = connector(visual).embeddings
    with torch.autocast("cpu", low_format):
        found = connector(replace(visual, patches=visual.patches.to(low_format))).embeddings
    assert found.shape[-1] == width
    assert (found.float() - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("name", FIXED_LENGTH)
def test_t24_a_fixed_number_of_tokens_is_fixed_whatever_the_number_of_patches(name: str) -> None:
    shapes = set()
    for patches in (50, 257, 577):  # ViT-B/32, ViT-L/14 at 224 px, ViT-L/14 at 336 px, each with its class token
        with torch.device("meta"):
            connector, _ = make(name, patches)
        shapes.add(connector(features([1, 1], patches, device="meta")).embeddings.shape)
    assert len(shapes) == 1


@pytest.mark.parametrize("name", CONNECTORS)
def test_it_brings_a_fusion(name: str) -> None:
    fusion = build(node(name, "fusion"))(language_width=LANGUAGE_WIDTH)
    assert isinstance(fusion, Fusion)
