"""Several layers of one encoder, read in one pass and put side by side."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.encoders.open_clip import OpenClipEncoder
from vlmtrain.encoders.taps import Tap, choose_taps
from vlmtrain.encoders.timm import TimmEncoder
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.encoders.vit_files import save_pretrained

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
SMALL |= {"image_size": 32, "patch_size": 8}
NATIVE = {"image_size": 32, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8}


def hugging_face(kind: str, keep: bool) -> Callable[[Path, Tap], VisionEncoder]:
    return lambda folder, tap: HuggingFaceEncoder(
        architecture={"model_type": kind, **SMALL}, tap=tap, keep_class_token=keep
    )


def open_clip(folder: Path, tap: Tap) -> VisionEncoder:
    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    config = {"model_cfg": {"embed_dim": 16, "vision_cfg": NATIVE, "text_cfg": text}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return OpenClipEncoder(f"local-dir:{folder}", tap=tap)


KINDS: dict[str, Callable[[Path, Tap], VisionEncoder]] = {
    "vit": lambda folder, tap: VisionTransformer(32, 8, 32, 3, 4, tap=tap),
    "clip": hugging_face("clip_vision_model", True),
    "siglip": hugging_face("siglip_vision_model", False),
    "dinov2": hugging_face("dinov2_with_registers", True),
    "timm": lambda folder, tap: TimmEncoder("test_vit", tap=tap),
    "open_clip": open_clip,
}


def make(name: str, folder: Path, tap: Tap) -> VisionEncoder:
    """All of one name have the same weights where they have the same modules."""
    torch.manual_seed(0)
    encoder = KINDS[name](folder, tap).eval()
    for label, parameter in encoder.named_parameters():
        torch.manual_seed(sum(map(ord, label)))
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def patches(encoder: VisionEncoder) -> Tensor:
    size = encoder.image_size
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = encoder(VisualBatch(pixels, [1, 1], [2])).patches
    assert found.shape == (2, encoder.patches_per_tile, encoder.width)
    return found


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("taps", [[-2, -3], [-1, -3], [-3, -1, -2]])
def test_several_layers_are_those_read_one_by_one(name: str, taps: list[int], tmp_path: Path) -> None:
    several = make(name, tmp_path, taps)
    together = patches(several)
    torch.testing.assert_close(
        together, torch.cat([patches(make(name, tmp_path, tap)) for tap in taps], -1), atol=1e-5, rtol=1e-5
    )
    together.square().sum().backward()
    unread = [label for label, parameter in several.named_parameters() if parameter.grad is None]
    pooled = name == "clip" and -1 in taps  # CLIP norms only what it pools, and nobody reads that
    assert unread == (["model.post_layernorm.weight", "model.post_layernorm.bias"] if pooled else [])


@pytest.mark.parametrize("tap", [[], [-2, -2]])
def test_a_list_that_names_no_or_one_layer_twice_is_refused(tap: list[int]) -> None:
    with pytest.raises(ValueError, match="name one layer, or several that differ"):
        choose_taps(tap, 3)
    with pytest.raises(ValueError, match="from -3"):
        choose_taps([-1, -4], 3)


def test_an_encoder_read_at_several_layers_is_not_saved_as_another(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tap=-1"):
        save_pretrained(VisionTransformer(32, 8, 32, 3, 4, tap=[-1, -2]), tmp_path)
