"""Backbones of timm behind our seam."""

import pytest
import torch

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.timm import TimmEncoder


def images(size: int) -> VisualBatch:
    return VisualBatch(torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8), [1], [1])


@pytest.mark.parametrize(("tap", "keep"), [(-1, True), (-2, True), (-2, False)])
def test_transformers_are_read_at_the_layer_asked_for(tap: int, keep: bool) -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder("test_vit", tap=tap, keep_class_token=keep).eval()
    torch.manual_seed(0)
    whole = TimmEncoder("test_vit").model.eval()
    visual = images(encoder.image_size)
    pixels = (visual.pixels.float() - encoder.pixel_mean) / encoder.pixel_std
    layer = len(whole.blocks) + tap
    patches, prefix = whole.forward_intermediates(
        pixels, indices=[layer], norm=tap == -1, output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
    )[0]
    wanted = torch.cat([prefix[:, :1], patches], 1) if keep else patches
    made = encoder(visual).patches
    torch.testing.assert_close(made, wanted)
    assert made.shape == (1, encoder.patches_per_tile, encoder.width)
    made.square().sum().backward()
    assert [name for name, parameter in encoder.named_parameters() if parameter.grad is None] == []


def test_convolutional_networks_give_their_last_map() -> None:
    encoder = TimmEncoder("test_resnet", keep_class_token=False)
    assert encoder(images(encoder.image_size)).patches.shape == (1, encoder.patches_per_tile, encoder.width)
    with pytest.raises(ValueError, match="tap=-1"):
        TimmEncoder("test_resnet", tap=-2, keep_class_token=False)


def test_eva_vit_g_of_blip2_is_counted_on_the_meta_device() -> None:
    with torch.device("meta"):
        encoder = TimmEncoder("eva_giant_patch14_clip_224.laion400m", is_pretrained=True, tap=-2)
    assert (encoder.width, encoder.patches_per_tile, encoder.image_size) == (1408, 257, 224)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 985_894_528


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="no model"):
        TimmEncoder("vit_of_nobody")
    with pytest.raises(ValueError, match="no such file"):
        TimmEncoder("test_vit", checkpoint="nowhere.pt")
    with pytest.raises(ValueError, match="exclude"):
        TimmEncoder("test_vit", is_pretrained=True, checkpoint="nowhere.pt")
