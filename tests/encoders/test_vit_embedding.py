"""A ViT's embedding by itself: what the ViT's own blocks would read, and nothing behind it."""

from pathlib import Path

import pytest
import torch

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.hybrid_vit import HybridVisionTransformer
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.encoders.vit_embedding import VitEmbedding
from vlmtrain.encoders.vit_files import pretrained, save_pretrained


@pytest.mark.parametrize("kind", [VisionTransformer, HybridVisionTransformer])
def test_the_blocks_of_the_vit_behind_it_are_the_vit(kind: type[VisionTransformer], tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = kind(image_size=16, patch_size=4, width=32, depth=2, num_heads=2)
    vit.pixel_mean.fill_(100.0)  # its own normalisation counts, not ours
    save_pretrained(vit, tmp_path)
    vit = pretrained(str(tmp_path)).eval()
    embedding = VitEmbedding(str(tmp_path)).eval()
    visual = VisualBatch(torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8), [1, 1, 1], [1, 1, 1])
    tokens = embedding(visual).patches
    assert tokens.shape == (3, embedding.patches_per_tile, embedding.width)
    x = tokens
    for block in vit.blocks:
        x = block(x, None)
    torch.testing.assert_close(vit.norm(x), vit(visual).patches, rtol=0, atol=0)
    own = {name for name, _ in embedding.named_parameters()}
    assert not any("blocks" in name or name.endswith("norm.weight") for name in own if "patch_projection" not in name)


def test_it_keeps_nothing_of_the_blocks_and_says_where_it_is_from(tmp_path: Path) -> None:
    vit = VisionTransformer(image_size=16, patch_size=4, width=32, depth=2, num_heads=2)
    save_pretrained(vit, tmp_path)
    embedding = VitEmbedding(str(tmp_path))
    kept = sum(parameter.numel() for parameter in embedding.parameters())
    left_out = sum(parameter.numel() for part in (vit.blocks, vit.norm) for parameter in part.parameters())
    assert kept == sum(parameter.numel() for parameter in vit.parameters()) - left_out
    assert embedding.source == str(tmp_path) and embedding.keep_class_token
