"""Two encoders on one tile."""

import pytest
import torch
import torch.nn.functional as F

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.encoders.patch_embedding import PatchEmbedding
from vlmtrain.encoders.side_by_side import SideBySide
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.training.trainability import enable_gradient_checkpointing

SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2}
SIGLIP |= {"intermediate_size": 40, "image_size": 24, "patch_size": 6}


def make() -> tuple[VisionEncoder, VisionEncoder]:
    """A 4x4 grid of patches, of 32 pixels for the one and of 24 for the other."""
    torch.manual_seed(0)
    large = VisionTransformer(32, 8, 24, 2, 4, keep_class_token=False)
    small = HuggingFaceEncoder(architecture=SIGLIP, keep_class_token=False)
    small.pixel_mean.fill_(30.0)
    small.pixel_std.fill_(70.0)
    return large.eval(), small.eval()


def images(count: int = 2) -> VisualBatch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return VisualBatch(pixels, [1] * count, [count])


def test_each_sees_its_own_size_and_normalisation() -> None:
    large, small = make()
    both = SideBySide([large, small])
    assert (both.width, both.patches_per_tile, both.image_size) == (44, 16, 32)
    visual = images()
    patches = both(visual).patches
    torch.testing.assert_close(patches[..., :24], large(visual).patches)
    shrunk = F.interpolate(visual.pixels, (24, 24), mode="bicubic", antialias=True).float()  # as data.transforms does
    wanted = small.encode_tiles((shrunk - 30.0) / 70.0)
    assert (patches[..., 24:] - wanted).abs().max() < 0.02  # the bytes may differ by one
    patches.square().sum().backward()
    assert all(parameter.grad is not None for parameter in both.parameters())


def test_it_has_no_parameters_of_its_own_and_its_parts_checkpoint() -> None:
    both = SideBySide(list(make()))
    assert {name.split(".")[0] for name in both.state_dict()} == {"encoders"}
    assert enable_gradient_checkpointing(both) == 2


def test_a_batch_without_images_passes_through() -> None:
    both = SideBySide(list(make()))
    patches = both(VisualBatch(torch.empty(0, 3, 1, 1, dtype=torch.uint8), [], [0])).patches
    assert patches.shape == (0, 16, 44)
    patches.sum().backward()
    assert all(parameter.grad is not None for parameter in both.parameters())


def test_grids_that_differ_are_named() -> None:
    large, _ = make()
    with pytest.raises(ValueError, match=r"VisionTransformer random makes 16, PatchEmbedding random makes 9"):
        SideBySide([large, PatchEmbedding(24, 8, 12)])
    with pytest.raises(ValueError, match="at least two"):
        SideBySide([large])


def test_tiles_of_several_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"SideBySide takes tiles of one size.*siglip2_naflex"):
        SideBySide(list(make()))(VisualBatch(images().pixels, [1, 1], [2], [(32, 32), (16, 32)]))
