import json
from pathlib import Path

import pytest
import torch

from vlmtrain.encoders.hybrid_vit import HybridVisionTransformer
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.encoders.vit_files import pretrained, save_pretrained


def test_only_the_patches_differ_from_the_plain_transformer() -> None:
    plain, hybrid = (kind(32, 8, 48, 2, 4) for kind in (VisionTransformer, HybridVisionTransformer))
    own = {name for name in hybrid.state_dict() if not name.startswith("patch_projection.")}
    assert own == {name for name in plain.state_dict() if not name.startswith("patch_projection.")}
    pixels = torch.randn(2, 3, 32, 32)
    assert hybrid.encode_tiles(pixels).shape == plain.encode_tiles(pixels).shape == (2, 17, 48)


def test_patches_start_at_a_scale_that_reaches_the_blocks() -> None:
    torch.manual_seed(0)
    made = HybridVisionTransformer(64, 8, 128, 1, 4).patch_projection(torch.randn(4, 3, 64, 64))
    assert 0.05 < made.std() < 0.5  # positions and class token start at 0.02 and must not drown


def test_a_folder_comes_back_as_the_same_encoder(tmp_path: Path) -> None:
    encoder = HybridVisionTransformer(32, 8, 48, 2, 4).eval()
    save_pretrained(encoder, tmp_path)
    again = pretrained(str(tmp_path))
    assert isinstance(again, HybridVisionTransformer)
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.encode_tiles(pixels), encoder.encode_tiles(pixels))


def test_a_patch_size_that_halving_does_not_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="patch_size 12 must be a power of two"):
        HybridVisionTransformer(48, 12, 48, 2, 4)


def test_a_patch_of_one_pixel_leaves_no_room_for_a_stem() -> None:
    with pytest.raises(ValueError, match="patch_size 1 must be a power of two from 2 on"):
        HybridVisionTransformer(8, 1, 48, 2, 4)


@pytest.mark.parametrize(("key", "known"), [("stem", "convolutional, linear"), ("positions", "Learned1D, Learned2D")])
def test_a_folder_that_asks_for_something_unknown_is_told_what_there_is(tmp_path: Path, key: str, known: str) -> None:
    save_pretrained(HybridVisionTransformer(32, 8, 48, 2, 4), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {key: "other"}))
    with pytest.raises(ValueError, match=f"{key} 'other' is none of {known}"):
        pretrained(str(tmp_path))


def test_a_class_of_ones_own_is_not_saved_as_another(tmp_path: Path) -> None:
    class Own(VisionTransformer):
        pass

    with pytest.raises(ValueError, match="Own has no place in such a folder"):
        save_pretrained(Own(32, 8, 48, 2, 4), tmp_path)
    assert not any(tmp_path.iterdir())
