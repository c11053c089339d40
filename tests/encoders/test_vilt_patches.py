"""ViLT's embedding of patches: sizes in one batch, and what images are resized to."""

import pytest
import torch
from torch import Tensor

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.vilt_patches import ViltPatches
from vlmtrain.encoders.vit import VisionTransformer


def make() -> ViltPatches:
    torch.manual_seed(0)
    encoder = ViltPatches(32, 8, 24, longest=48)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def tile(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


def test_of_a_square_it_is_what_a_vit_reads_before_its_first_block() -> None:
    encoder, vit = make(), VisionTransformer(32, 8, 24, 1, 2)
    with torch.no_grad():
        weight = encoder.project.weight.unflatten(1, (8, 8, 3)).permute(0, 3, 1, 2)
        vit.patch_projection.weight.copy_(weight)
        vit.patch_projection.bias.copy_(encoder.project.bias)
        vit.class_token.copy_(encoder.class_token)
        vit.positions.vectors.copy_(encoder.positions)
    features = encoder(VisualBatch(tile(32, 32), [1], [1]))
    assert features.patch_mask is None and features.patches.shape == (1, 17, 24)
    wanted, _ = vit.embed_patches(vit.normalise(tile(32, 32)))
    torch.testing.assert_close(features.patches, wanted, atol=1e-5, rtol=0)


def test_sizes_mix_in_a_batch_and_padding_changes_nothing() -> None:
    encoder, sizes = make(), [(32, 48), (32, 32), (16, 8)]
    canvas = torch.full((3, 3, 32, 48), 200, dtype=torch.uint8)
    for index, (height, width) in enumerate(sizes):
        canvas[index, :, :height, :width] = tile(height, width)[0]
    together = encoder(VisualBatch(canvas, [1, 1, 1], [1, 1, 1], sizes))
    assert together.patch_mask is not None and together.patch_mask.sum(1).tolist() == [25, 17, 3]
    assert encoder.patches_per_tile == 25 and encoder.keep_class_token
    for index, (height, width) in enumerate(sizes):
        alone = encoder(VisualBatch(tile(height, width), [1], [1]))
        assert alone.patch_mask is None, "of one size, nothing is padded"
        torch.testing.assert_close(together.patches[index][together.patch_mask[index]], alone.patches[0])


def test_a_batch_without_images_still_reaches_every_parameter() -> None:
    encoder = make()
    features = encoder(VisualBatch(torch.empty(0, 3, 1, 1, dtype=torch.uint8), [], [0, 0]))
    assert features.patches.shape == (0, 17, 24)
    features.patches.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in encoder.parameters())


def test_it_is_counted_without_weights_and_sizes_are_checked() -> None:
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in ViltPatches(384, 32, 768, 640).parameters())
    for image_size, longest in ((30, None), (32, 24)):
        with pytest.raises(ValueError, match=f"image_size {image_size} must be a multiple of patch_size 8"):
            ViltPatches(image_size, 8, 24, longest)
    with pytest.raises(ValueError, match="more than the 25"):
        make()(VisualBatch(tile(48, 48), [1], [1]))
