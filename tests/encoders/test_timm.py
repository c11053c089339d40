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


def test_a_hybrid_is_counted_in_patches_of_its_map() -> None:
    """SimVLM's kind of stem: three stages of a ResNet, 14x14 patches, and one block of a transformer."""
    with torch.device("meta"):
        encoder = TimmEncoder("vit_base_r50_s16_224", tap=-12, keep_class_token=False)
        patches = encoder.encode_tiles(torch.empty(1, 3, encoder.image_size, encoder.image_size))
    assert patches.shape == (1, encoder.patches_per_tile, encoder.width) == (1, 196, 768)


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="no model"):
        TimmEncoder("vit_of_nobody")
    with pytest.raises(ValueError, match="no such file"):
        TimmEncoder("test_vit", checkpoint="nowhere.pt")
    with pytest.raises(ValueError, match="exclude"):
        TimmEncoder("test_vit", is_pretrained=True, checkpoint="nowhere.pt")


@pytest.mark.parametrize("name", ["test_resnet", "test_nfnet", "test_convnext"])
def test_t40_the_last_map_is_read_row_by_row(name: str) -> None:
    """[N, C, h, w] -> [N, h * w, C]; some models of timm have the channels last already."""
    encoder = TimmEncoder(name, keep_class_token=False).eval()
    visual = images(encoder.image_size)
    patches = encoder(visual).patches
    whole = encoder.model.forward_features((visual.pixels.float() - encoder.pixel_mean) / encoder.pixel_std)
    channels = whole.shape.index(encoder.width)
    picture = whole.movedim(channels, 1)
    side = picture.shape[-1]
    assert patches.shape == (1, side * side, encoder.width) == (1, encoder.patches_per_tile, encoder.width)
    for row in range(side):
        for column in range(side):
            assert torch.equal(patches[0, row * side + column], picture[0, :, row, column])
    patches.square().sum().backward()
    assert [label for label, parameter in encoder.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("name", "patches", "width"),
    [("resnet50", 49, 2048), ("nfnet_f0", 36, 3072), ("swin_tiny_patch4_window7_224", 49, 768)],
)
def test_t40_maps_of_published_networks(name: str, patches: int, width: int) -> None:
    with torch.device("meta"):
        encoder = TimmEncoder(name, keep_class_token=False)
        made = encoder.encode_tiles(torch.empty(2, 3, encoder.image_size, encoder.image_size))
    assert made.shape == (2, patches, width) == (2, encoder.patches_per_tile, encoder.width)


def test_a_transformer_without_a_class_token_is_read_too() -> None:
    with torch.device("meta"):
        encoder = TimmEncoder("vit_base_patch16_siglip_224", tap=-2, keep_class_token=False)
        made = encoder.encode_tiles(torch.empty(2, 3, 224, 224))
    assert made.shape == (2, 196, 768)
