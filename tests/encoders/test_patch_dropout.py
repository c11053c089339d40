"""FLIP: only some patches, in training, drawn by the key of the micro-batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.encoders.clip_resnet import ClipResNet
from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.encoders.hybrid_vit import HybridVisionTransformer
from vlmtrain.encoders.patch_dropout import drop_patches
from vlmtrain.encoders.timm import TimmEncoder

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SMALL |= {"image_size": 32, "patch_size": 8}


def encoders() -> dict[str, VisionEncoder]:
    torch.manual_seed(0)
    return {
        "native": HybridVisionTransformer(32, 8, 32, 2, 4),
        "clip": HuggingFaceEncoder(architecture={"model_type": "clip_vision_model", **SMALL}, norms_end=True),
        "registers": HuggingFaceEncoder(architecture={"model_type": "dinov2_with_registers", **SMALL}),
        "siglip": HuggingFaceEncoder(
            architecture={"model_type": "siglip_vision_model", **SMALL}, keep_class_token=False
        ),
        "timm": TimmEncoder("test_vit"),
    }


@pytest.mark.parametrize("name", ["native", "clip", "registers", "siglip", "timm"])
def test_half_of_the_patches_in_training_and_all_in_evaluation(name: str) -> None:
    encoder = encoders()[name]
    size, patches = encoder.image_size, encoder.patches_per_tile - int(encoder.keep_class_token)
    visual = VisualBatch(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8), [1, 1], [1, 1])
    encoder.eval()
    whole, names = encoder(visual).patches, list(encoder.state_dict())
    assert drop_patches(encoder, 0.5) is encoder
    assert list(encoder.state_dict()) == names
    torch.testing.assert_close(encoder(visual).patches, whole)
    encoder.train()
    torch.manual_seed(5)
    some = encoder(visual).patches
    assert some.shape[1] == round(patches / 2) + int(encoder.keep_class_token)
    torch.manual_seed(5)
    torch.testing.assert_close(encoder(visual).patches, some)
    torch.manual_seed(6)
    other = encoder(visual).patches
    assert not torch.allclose(other, some)
    some.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_what_is_kept_is_drawn_without_repeats_and_the_class_token_stays(share: float, seed: int) -> None:
    encoder = HybridVisionTransformer(32, 8, 32, 1, 4).train()
    encoder.blocks = torch.nn.ModuleList([Shows()])
    drop_patches(encoder, share)
    torch.manual_seed(seed)
    tokens = torch.arange(17.0).view(1, 17, 1).expand(3, 17, 32)
    (shown,) = [encoder.blocks[0](tokens, None)]
    for row in shown[..., 0].tolist():
        assert row[0] == 0 and len(set(row)) == len(row) == 1 + max(1, round((1 - share) * 16))


class Shows(torch.nn.Module):
    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return x


def test_a_frozen_encoder_sees_everything_and_misuse_is_named() -> None:
    encoder = drop_patches(HybridVisionTransformer(32, 8, 32, 2, 4), 0.5).eval()
    assert encoder.encode_tiles(torch.randn(1, 3, 32, 32)).shape[1] == 17
    with pytest.raises(ValueError, match="share is 1"):
        drop_patches(encoder, 1.0)
    with pytest.raises(ValueError, match="module list"):
        drop_patches(ClipResNet(32, (1, 1, 1, 1), 8), 0.5)
