"""Every file of conf/model/connector/ keeps the contract of a connector.  A new file is found by itself."""

from pathlib import Path

import pytest
import torch

from vlmtrain.batch import VisualFeatures
from vlmtrain.config.build import build
from vlmtrain.config.compose import compose
from vlmtrain.connectors.base import Connector
from vlmtrain.fusions.base import Fusion

CONNECTORS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / "model" / "connector").glob("*.yaml"))
ENCODER_WIDTH, PATCHES, LANGUAGE_WIDTH = 12, 17, 20


def make(name: str) -> Connector:
    torch.manual_seed(0)
    node = compose([f"model/connector={name}"]).config["model"]["connector"]
    connector = build(node)(encoder_width=ENCODER_WIDTH, patches_per_tile=PATCHES, language_width=LANGUAGE_WIDTH)
    assert isinstance(connector, Connector)
    return connector.eval()


def features(tiles_per_item: list[int]) -> VisualFeatures:
    generator = torch.Generator().manual_seed(1)
    patches = torch.randn(sum(tiles_per_item), PATCHES, ENCODER_WIDTH, generator=generator)
    return VisualFeatures(patches, tiles_per_item, [len(tiles_per_item)])


@pytest.mark.parametrize("name", CONNECTORS)
def test_it_makes_as_many_tokens_as_it_promises(name: str) -> None:
    connector, tiles = make(name), [1, 2, 1]
    tokens = connector(features(tiles))
    assert tokens.tokens_per_item == [connector.tokens_per_item(count) for count in tiles]
    assert tokens.embeddings.shape == (sum(tokens.tokens_per_item), LANGUAGE_WIDTH)
    assert tokens.items_per_sample == [3]


@pytest.mark.parametrize("name", CONNECTORS)
def test_gradient_reaches_the_patches_and_every_parameter(name: str) -> None:
    connector, visual = make(name), features([1, 1])
    visual.patches.requires_grad_()
    connector(visual).embeddings.square().sum().backward()
    assert visual.patches.grad is not None and visual.patches.grad.abs().sum() > 0
    without = [label for label, parameter in connector.named_parameters() if parameter.grad is None]
    assert not without


@pytest.mark.parametrize("name", CONNECTORS)
def test_items_do_not_see_each_other(name: str) -> None:
    connector = make(name)
    both, visual = features([1, 1]), features([1, 1])
    visual.patches[1] += 1.0
    kept = connector.tokens_per_item(1)
    torch.testing.assert_close(connector(both).embeddings[:kept], connector(visual).embeddings[:kept])
    assert not torch.allclose(connector(both).embeddings[kept:], connector(visual).embeddings[kept:])


@pytest.mark.parametrize("name", CONNECTORS)
def test_it_brings_a_fusion(name: str) -> None:
    fusion = build(compose([f"model/connector={name}"]).config["model"]["fusion"])(language_width=LANGUAGE_WIDTH)
    assert isinstance(fusion, Fusion)
