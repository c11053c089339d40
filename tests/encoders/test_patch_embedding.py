"""Raw patches without an encoder, of any size within a limit."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.patch_embedding import PatchEmbedding


def make() -> PatchEmbedding:
    torch.manual_seed(0)
    encoder = PatchEmbedding(32, 8, 24)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def tile(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


def test_t01_every_patch_passes_one_linear_projection() -> None:
    encoder, pixels = make(), tile(32, 32)
    flat = rearrange((pixels.float() - 127.5) / 127.5, "n c (r a) (s b) -> n (r s) (a b c)", a=8, b=8)
    places = (encoder.rows.weight[:, None] + encoder.columns.weight[None]).flatten(0, 1)
    features = encoder(VisualBatch(pixels, [1], [1]))
    assert features.patch_mask is None and features.patches.shape == (1, encoder.patches_per_tile, encoder.width)
    wanted = F.linear(flat, encoder.project.weight, encoder.project.bias) + places
    torch.testing.assert_close(features.patches, wanted, atol=1e-5, rtol=0)
    features.patches.square().sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_sizes_mix_in_a_batch_and_padding_changes_nothing() -> None:
    encoder, sizes = make(), [(8, 24), (32, 32), (16, 8)]
    canvas = torch.full((3, 3, 32, 32), 200, dtype=torch.uint8)
    for index, (height, width) in enumerate(sizes):
        canvas[index, :, :height, :width] = tile(height, width)[0]
    together = encoder(VisualBatch(canvas, [1, 1, 1], [3], sizes))
    assert together.patch_mask is not None and together.patch_mask.sum(1).tolist() == [3, 16, 2]
    for index, (height, width) in enumerate(sizes):
        alone = encoder(VisualBatch(tile(height, width), [1], [1]))
        assert (alone.patch_mask is None) == ((height, width) == (32, 32))
        torch.testing.assert_close(together.patches[index][together.patch_mask[index]], alone.patches[0])


def test_a_batch_without_images_still_reaches_every_parameter() -> None:
    encoder = make()
    features = encoder(VisualBatch(torch.empty(0, 3, 1, 1, dtype=torch.uint8), [], [0, 0]))
    assert features.patches.shape[0] == 0
    features.patches.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in encoder.parameters())


@pytest.mark.parametrize(("height", "width", "said"), [(40, 8, "exceeds the 4 rows"), (12, 8, "patches of 8")])
def test_sizes_it_cannot_take_are_named(height: int, width: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()(VisualBatch(tile(height, width), [1], [1]))


def test_a_side_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ValueError, match="image_size 30"):
        PatchEmbedding(30, 8, 24)
