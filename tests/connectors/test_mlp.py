"""The MLP against transformers' LlavaMultiModalProjector."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.connectors.mlp import MLPConnector


def named(ours: MLPConnector, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
    layers = {"linear_1": ours.layers[0], "linear_2": ours.layers[2]}
    return {f"{name}.{kind}": of(getattr(layer, kind)) for name, layer in layers.items() for kind in ("weight", "bias")}


def test_parity_with_llava(hold_parity: Callable[..., None]) -> None:
    from transformers import LlavaConfig
    from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

    vision = {"model_type": "clip_vision_model", "hidden_size": 12, "num_attention_heads": 2}
    text = {"model_type": "llama", "hidden_size": 20, "num_attention_heads": 2}
    theirs = LlavaMultiModalProjector(LlavaConfig(vision_config=vision, text_config=text))
    ours = MLPConnector(12, 9, 20)
    patches = torch.randn(3, 9, 12, generator=torch.Generator().manual_seed(1))
    hold_parity(ours, theirs, lambda of: named(ours, of), ours.connect_tiles, patches, theirs)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_num_layers_counts_the_linear_layers(num_layers: int) -> None:
    layers = MLPConnector(12, 9, 20, num_layers).layers
    assert [type(layer) for layer in layers] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear][
        : 2 * num_layers - 1
    ]


def test_an_mlp_has_a_layer() -> None:
    with pytest.raises(ValueError, match="num_layers 0"):
        MLPConnector(12, 9, 20, 0)
