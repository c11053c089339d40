"""Space to depth, norm and MLP against transformers' InternVL."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vlmtrain.connectors.pixel_shuffle_mlp import PixelShuffleMLP


def named(ours: PixelShuffleMLP, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
    layers = {"layer_norm": ours.norm, "linear_1": ours.layers[0], "linear_2": ours.layers[2]}
    return {f"{name}.{kind}": of(getattr(layer, kind)) for name, layer in layers.items() for kind in ("weight", "bias")}


def test_parity_with_internvl(hold_parity: Callable[..., None]) -> None:
    from transformers import InternVLConfig
    from transformers.models.internvl.modeling_internvl import InternVLModel, InternVLMultiModalProjector

    config = InternVLConfig(
        vision_config={"hidden_size": 12},
        text_config={"model_type": "llama", "hidden_size": 20, "num_attention_heads": 2},
        downsample_ratio=0.5,
    )
    theirs, ours = InternVLMultiModalProjector(config), PixelShuffleMLP(12, 17, 20)

    def their_output(patches: Tensor) -> Tensor:
        grid = patches[:, 1:].unflatten(1, (4, 4))
        squares: Tensor = InternVLModel.pixel_shuffle(None, grid, scale_factor=0.5)
        projected: Tensor = theirs(squares.flatten(1, 2))
        return projected

    patches = torch.randn(3, 17, 12, generator=torch.Generator().manual_seed(1))
    hold_parity(ours, theirs, lambda of: named(ours, of), ours.connect_tiles, patches, their_output)
