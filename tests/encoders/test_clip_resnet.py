"""CLIP's ResNet and its attention pooling are open_clip's ModifiedResNet."""

import importlib

import pytest
import torch
import torch.nn.functional as F

from vlmtrain.encoders.clip_resnet import BatchNorm, ClipResNet
from vlmtrain.nn.attention_pooling import MeanQueryAttention
from vlmtrain.nn.projections import WithBias

resnets = importlib.import_module(
    "open_clip.modified_resnet"
)  # after vlmtrain, whose hook lets torchvision be imported


@pytest.mark.parametrize("training", [False, True])
def test_t15_it_is_the_resnet_of_open_clip(training: bool) -> None:
    torch.manual_seed(0)
    theirs = resnets.ModifiedResNet(layers=[2, 1, 1, 1], output_dim=12, heads=4, image_size=64, width=8).train(training)
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = ClipResNet(64, layers=(2, 1, 1, 1), channels=8).train(training)
    pooling, projection = MeanQueryAttention(ours.width, ours.patches_per_tile, num_heads=4), WithBias(ours.width, 12)
    trunk = {name: value for name, value in theirs.state_dict().items() if not name.startswith("attnpool.")}
    assert [value.shape for value in trunk.values()] == [value.shape for value in ours.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), trunk.values(), strict=True)))  # both list them as they are run
    pool = theirs.attnpool
    pooling.positions.data.copy_(pool.positional_embedding)
    pairs = [(pooling.to_query, pool.q_proj), (pooling.to_key, pool.k_proj), (pooling.to_value, pool.v_proj)]
    for mine, other in [*pairs, (projection, pool.c_proj)]:
        mine.load_state_dict(other.state_dict())
    pixels = torch.randn(3, 3, 64, 64)
    made, wanted = projection(pooling(ours.encode_tiles(pixels))), theirs(pixels)
    assert float((made - wanted).detach().abs().max()) < 1e-5
    towards = torch.randn(3, 12)
    for vectors in (made, wanted):
        F.cosine_similarity(vectors, towards).mean().backward()  # what a dual encoder's loss looks at
    compared = list(
        zip(ours.parameters(), (p for n, p in theirs.named_parameters() if "attnpool" not in n), strict=True)
    )
    compared += [(mine.weight, other.weight) for mine, other in [*pairs, (projection, pool.c_proj)]]
    compared += [(pooling.positions, pool.positional_embedding)]
    assert max(float((mine.grad - other.grad).abs().max()) for mine, other in compared) < 1e-5
    trunk = [value for name, value in theirs.state_dict().items() if not name.startswith("attnpool.")]
    for mine, other in zip(ours.state_dict().values(), trunk, strict=True):
        torch.testing.assert_close(mine, other)


def test_a_survey_leaves_running_statistics_alone() -> None:
    norm, images = BatchNorm(4).train(), torch.randn(2, 4, 3, 3)
    before = norm.running_mean.clone()
    with torch.no_grad():
        surveyed = norm(images)
    assert torch.equal(norm.running_mean, before)
    torch.testing.assert_close(norm(images), surveyed)
    assert not torch.equal(norm.running_mean, before)
    norm.eval()
    with torch.no_grad():
        assert not torch.allclose(norm(images), surveyed)


def test_rn50_has_the_published_size() -> None:
    with torch.device("meta"):
        encoder = ClipResNet()
        pooling = MeanQueryAttention(encoder.width, encoder.patches_per_tile)
    assert (encoder.width, encoder.patches_per_tile) == (2048, 49)
    count = sum(p.numel() for p in (*encoder.parameters(), *pooling.parameters(), *WithBias(2048, 1024).parameters()))
    assert count == 38_316_896  # the image tower of OpenAI's RN50


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="image_size 60"):
        ClipResNet(60)
    with pytest.raises(ValueError, match="49 patches"):
        MeanQueryAttention(32, 49, num_heads=4)(torch.randn(1, 4, 32))
