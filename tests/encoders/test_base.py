"""What every encoder does alike."""

from collections.abc import Callable

import pytest
import torch

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.encoders.timm import TimmEncoder
from vlmtrain.encoders.vit import VisionTransformer

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SMALL |= {"image_size": 32, "patch_size": 8}
KINDS: dict[str, Callable[[], VisionEncoder]] = {
    "vit": lambda: VisionTransformer(32, 8, 24, 2, 4),
    "dinov2": lambda: HuggingFaceEncoder(architecture={"model_type": "dinov2", **SMALL}),
    "timm": lambda: TimmEncoder("test_vit"),
    "resnet": lambda: TimmEncoder("test_resnet", keep_class_token=False).eval(),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_batch_without_images_runs_every_module(name: str) -> None:
    """No part may be skipped on one rank only; gradients exist, as zeros."""
    encoder = KINDS[name]()
    features = encoder(VisualBatch(torch.empty(0, 3, 1, 1, dtype=torch.uint8), [], [0, 0]))
    assert features.patches.shape == (0, encoder.patches_per_tile, encoder.width)
    assert (features.tiles_per_item, features.items_per_sample) == ([], [0, 0])
    features.patches.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in encoder.parameters())


def test_tiles_that_do_not_fill_their_canvas_are_refused() -> None:
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    full = VisualBatch(pixels, [1, 1], [2], [(32, 32), (32, 32)])
    encoder = KINDS["vit"]()
    assert torch.equal(encoder(full).patches, encoder(VisualBatch(pixels, [1, 1], [2])).patches)
    with pytest.raises(ValueError, match=r"VisionTransformer takes tiles of one size.*\(16, 32\).*siglip2_naflex"):
        encoder(VisualBatch(pixels, [1, 1], [2], [(32, 32), (16, 32)]))
