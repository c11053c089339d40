"""Vision models of transformers behind our seam."""

import json
from pathlib import Path

import pytest
import torch

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
KINDS = [("clip_vision_model", True), ("siglip_vision_model", False), ("dinov2", True), ("vit", True)]
KINDS += [("dinov2_with_registers", True), ("dinov2", False)]


def images(size: int = 32) -> VisualBatch:
    return VisualBatch(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8), [1, 1], [1, 1])


@pytest.mark.parametrize(("kind", "keep"), KINDS)
def test_every_parameter_of_a_tapped_encoder_matters(kind: str, keep: bool) -> None:
    encoder = HuggingFaceEncoder(architecture={"model_type": kind, **SMALL}, tap=-2, keep_class_token=keep)
    patches = encoder(images()).patches
    assert patches.shape == (2, encoder.patches_per_tile, encoder.width) == (2, 16 + keep, 32)
    patches.square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def save_clip(folder: Path) -> torch.nn.Module:
    from transformers import CLIPConfig, CLIPModel

    text = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "vocab_size": 50,
    }
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=SMALL, projection_dim=16)).eval()
    clip.save_pretrained(folder)
    statistics = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return clip


@pytest.mark.parametrize(("tap", "layers"), [(-1, 3), (-2, 2), (-3, 1)])
def test_the_tower_of_a_clip_folder_is_read_at_the_layer_asked_for(tmp_path: Path, tap: int, layers: int) -> None:
    clip = save_clip(tmp_path)
    encoder = HuggingFaceEncoder(str(tmp_path), tap=tap).eval()
    visual = images()
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    pixels = (visual.pixels / 255 - mean) / std
    with torch.no_grad():
        theirs = clip.vision_model(pixel_values=pixels, output_hidden_states=True)
        wanted = theirs.last_hidden_state if tap == -1 else theirs.hidden_states[tap]
        torch.testing.assert_close(encoder(visual).patches, wanted, atol=1e-5, rtol=1e-4)
    assert len(encoder.model.encoder.layers if hasattr(encoder.model, "encoder") else encoder.layers) == layers


def test_other_image_sizes_interpolate_positions(tmp_path: Path) -> None:
    save_clip(tmp_path)
    encoder = HuggingFaceEncoder(str(tmp_path), tap=-2, image_size=48)
    assert encoder(images(48)).patches.shape == (2, 37, 32) == (2, encoder.patches_per_tile, 32)


def test_frozen_encoders_checkpoint_in_eval_mode() -> None:
    gradients, runs = [], []
    for is_on in (False, True):
        torch.manual_seed(0)
        encoder = HuggingFaceEncoder(architecture={"model_type": "vit", **SMALL}).eval().requires_grad_(False)
        if is_on:
            encoder.enable_gradient_checkpointing()
        calls: list[int] = []
        encoder.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        pixels = torch.ones(1, 3, 32, 32, requires_grad=True)
        encoder.encode_tiles(pixels).square().sum().backward()
        gradients.append(pixels.grad)
        runs.append(len(calls))
    assert runs == [1, 2]
    torch.testing.assert_close(*gradients)


def test_paper_sizes_are_counted_on_the_meta_device_without_a_hub() -> None:
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    architecture = {"model_type": "clip_vision_model", **large, "image_size": 224, "patch_size": 14}
    with torch.device("meta"):
        encoder = HuggingFaceEncoder("openai/clip-vit-large-patch14", architecture=architecture, tap=-2)
    assert encoder.patches_per_tile == 257
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 290_581_504


def test_misuse_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep_class_token=false"):
        HuggingFaceEncoder(architecture={"model_type": "siglip_vision_model", **SMALL})
    with pytest.raises(ValueError, match="no such folder"):
        HuggingFaceEncoder(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="architecture"):
        HuggingFaceEncoder()
    save_clip(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        HuggingFaceEncoder(str(tmp_path))
