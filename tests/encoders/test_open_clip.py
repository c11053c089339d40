"""Image towers of open_clip behind our seam."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.open_clip import OpenClipEncoder

NATIVE = {"image_size": 32, "layers": 3, "width": 64, "head_width": 16, "patch_size": 8}
FROM_TIMM = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 160}


def save_tower(folder: Path, vision: dict[str, object]) -> torch.nn.Module:
    from open_clip import CLIP

    text = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": {"mean": [0.5] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    clip = CLIP(**config["model_cfg"]).eval()
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    return clip.visual


@pytest.mark.parametrize("vision", [NATIVE, FROM_TIMM], ids=["native", "timm"])
@pytest.mark.parametrize(("tap", "keep"), [(-1, True), (-2, False)])
def test_a_tower_from_a_folder_is_read_at_the_layer_asked_for(
    tmp_path: Path, vision: dict[str, object], tap: int, keep: bool
) -> None:
    tower = save_tower(tmp_path, vision)
    encoder = OpenClipEncoder(f"local-dir:{tmp_path}", tap=tap, keep_class_token=keep).eval()
    size = encoder.image_size
    visual = VisualBatch(torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8), [1], [1])
    pixels = (visual.pixels.float() - encoder.pixel_mean) / encoder.pixel_std
    output = tower.forward_intermediates(
        pixels, normalize_intermediates=tap == -1, output_fmt="NLC", output_extra_tokens=True, intermediates_only=True
    )
    patches = output["image_intermediates"][tap]
    wanted = torch.cat([output["image_intermediates_prefix"][tap], patches], 1) if keep else patches
    made = encoder(visual).patches
    torch.testing.assert_close(made, wanted)
    assert made.shape == (1, encoder.patches_per_tile, encoder.width)
    made.square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []
