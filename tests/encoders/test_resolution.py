"""Tiles larger than those of pretraining: positions are interpolated, and at the trained size nothing changes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.encoders.timm import TimmEncoder
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.encoders.vit_files import pretrained, save_pretrained
from vlmtrain.encoders.vit_positions import Learned1D, Learned2D, Positions, RelativeBias1D, RelativeBias2D

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SMALL |= {"image_size": 32, "patch_size": 8}
KINDS = [("clip_vision_model", True), ("siglip_vision_model", False), ("dinov2", True), ("vit", True)]


def images(size: int) -> VisualBatch:
    generator = torch.Generator().manual_seed(1)
    return VisualBatch(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=generator), [1, 1], [2])


def saved(folder: Path, positions: type[Positions] = Learned1D) -> VisionTransformer:
    torch.manual_seed(0)
    encoder = VisionTransformer(32, 8, 24, 2, 4, positions=positions).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_pretrained(encoder, folder)
    return encoder


@pytest.mark.parametrize("positions", [Learned1D, Learned2D, RelativeBias1D, RelativeBias2D])
def test_the_trained_size_changes_nothing(positions: type[Positions], tmp_path: Path) -> None:
    encoder = saved(tmp_path, positions)
    assert torch.equal(pretrained(str(tmp_path), image_size=32)(images(32)).patches, encoder(images(32)).patches)


@pytest.mark.parametrize("size", [24, 48, 80])
def test_another_size_is_interpolated_as_transformers_does(size: int, tmp_path: Path) -> None:
    from transformers import ViTModel

    saved(tmp_path)
    theirs = ViTModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    ours, visual = pretrained(str(tmp_path), image_size=size), images(size)
    wanted = theirs((visual.pixels.float() - 127.5) / 127.5, interpolate_pos_encoding=True).last_hidden_state
    found = ours(visual).patches
    assert found.shape == (2, ours.patches_per_tile, 24) and ours.image_size == size
    assert (found - wanted).abs().max() < 1e-5
    weights = torch.randn_like(found) / 10
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert ours.patch_projection.weight.grad.abs().max() > 0.05  # else 1e-5 would say nothing
    gradient = ours.patch_projection.weight.grad
    assert (gradient - theirs.embeddings.patch_embeddings.projection.weight.grad).abs().max() < 1e-5


def test_rows_and_columns_are_interpolated_apart(tmp_path: Path) -> None:
    encoder = saved(tmp_path, Learned2D)
    with torch.no_grad():
        encoder.positions.rows.copy_(torch.arange(4.0).unsqueeze(1).expand(-1, 24))
    larger = encoder.positions.resized((8, 4))
    assert larger.rows[:, 0].tolist() == [0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]
    torch.testing.assert_close(larger.columns, encoder.positions.columns)


@pytest.mark.parametrize("positions", [RelativeBias1D, RelativeBias2D])
def test_offsets_of_which_nothing_was_learned_are_refused(positions: type[Positions], tmp_path: Path) -> None:
    saved(tmp_path, positions)
    assert pretrained(str(tmp_path), image_size=24)(images(24)).patches.shape == (2, 10, 24)
    with pytest.raises(ValueError, match="cannot grow to 6x6"):
        pretrained(str(tmp_path), image_size=48)
    with pytest.raises(ValueError, match="image_size 33"):
        pretrained(str(tmp_path), image_size=33)


@pytest.mark.parametrize(("kind", "keep"), KINDS)
def test_models_of_transformers_interpolate_as_they_do_by_themselves(kind: str, keep: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = HuggingFaceEncoder(architecture={"model_type": kind, **SMALL}, keep_class_token=keep).eval()
    whole.model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    for size in (32, 56):
        ours = HuggingFaceEncoder(str(tmp_path), keep_class_token=keep, image_size=size).eval()
        visual = images(size)
        pixels = (visual.pixels.float() - 127.5) / 127.5
        wanted = whole.model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
        found = ours(visual).patches
        assert found.shape == (2, ours.patches_per_tile, 32)
        assert (found - wanted).abs().max() < 1e-5
        if size == 32:
            torch.testing.assert_close(found, whole(visual).patches)


def test_models_of_timm_interpolate_as_they_do_by_themselves(tmp_path: Path) -> None:
    import timm  # after vlmtrain, which mends the import of torchvision

    torch.manual_seed(0)
    dynamic = timm.create_model("test_vit", dynamic_img_size=True, num_classes=0).eval()
    save_file(dynamic.state_dict(), tmp_path / "model.safetensors")
    for size in (160, 224):
        ours = TimmEncoder("test_vit", checkpoint=str(tmp_path / "model.safetensors"), image_size=size).eval()
        visual = images(size)
        wanted = dynamic.forward_features((visual.pixels.float() - ours.pixel_mean) / ours.pixel_std)
        assert (ours(visual).patches - wanted[:, : ours.patches_per_tile]).abs().max() < 1e-5
