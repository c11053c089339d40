"""Space to depth and one projection against transformers' Idefics3Connector."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from vlmtrain.connectors.pixel_shuffle import PixelShuffle


@pytest.mark.parametrize("factor", [2, 3])
def test_parity_with_idefics3(factor: int, hold_parity: Callable[..., None]) -> None:
    from transformers import Idefics3Config
    from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

    text = {"model_type": "llama", "hidden_size": 20, "num_attention_heads": 2}
    theirs = Idefics3Connector(Idefics3Config(text_config=text, vision_config={"hidden_size": 12}, scale_factor=factor))
    ours = PixelShuffle(12, 36, 20, factor)
    patches = torch.randn(3, 36, 12, generator=torch.Generator().manual_seed(1))
    named = "modality_projection.proj.weight"
    hold_parity(ours, theirs, lambda of: {named: of(ours.project.weight)}, ours.connect_tiles, patches, theirs)


def test_a_token_is_made_of_its_own_square() -> None:
    connector = PixelShuffle(3, 17, 12, factor=2)
    nn.init.eye_(connector.project.weight)
    grid = torch.arange(16.0).reshape(1, 16, 1).expand(-1, -1, 3)
    with_class_token = torch.cat([torch.full((1, 1, 3), -1.0), grid], dim=1)
    tokens = connector.connect_tiles(with_class_token)[0]
    assert tokens[1].tolist() == [2, 2, 2, 3, 3, 3, 6, 6, 6, 7, 7, 7]
    assert tokens[2].tolist() == [8, 8, 8, 9, 9, 9, 12, 12, 12, 13, 13, 13]


def test_a_factor_that_does_not_divide_the_grid_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"factor 2 does not divide the 27 x 27 grid .* 729 patches.* 1, 3, 9, 27"):
        PixelShuffle(12, 729, 20)
