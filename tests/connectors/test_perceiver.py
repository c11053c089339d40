"""The resampler against transformers' IdeficsPerceiverResampler; T38, T39 and the connector's part of T41."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vlmtrain.batch import VisualFeatures
from vlmtrain.config.build import build
from vlmtrain.config.compose import compose
from vlmtrain.connectors.base import Connector
from vlmtrain.connectors.perceiver import PerceiverResampler
from vlmtrain.nn.squared_relu import squared_relu

WIDTH, PATCHES, LANGUAGE_WIDTH = 12, 5, 20


def make(num_latents: int = 6, max_frames: int = 4) -> PerceiverResampler:
    torch.manual_seed(0)
    return PerceiverResampler(WIDTH, PATCHES, LANGUAGE_WIDTH, num_latents, 2, 3, 8, max_frames).eval()


def patches(tiles: int, count: int = PATCHES, seed: int = 1) -> Tensor:
    return torch.randn(tiles, count, WIDTH, generator=torch.Generator().manual_seed(seed))


def connect(connector: Connector, tiles: Tensor, mask: Tensor | None = None) -> Tensor:
    """One item of these tiles: [F, P, W] -> [Q, D]"""
    return connector(VisualFeatures(tiles, [len(tiles)], [1], mask)).embeddings


def named(ours: PerceiverResampler, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
    """`of` our parameters, under the names of IdeficsPerceiverResampler."""

    def pair(prefix: str, norm: nn.LayerNorm) -> dict[str, Tensor]:
        return {f"{prefix}.weight": of(norm.weight), f"{prefix}.bias": of(norm.bias)}

    found = {"latents": of(ours.latents), **pair("layer_norm", ours.norm)}
    for index, layer in enumerate(ours.layers):
        at, key_value = f"blocks.{index}", of(layer.attention.to_key_value.weight).chunk(2)
        found |= pair(f"{at}.0.context_layer_norm", layer.context_norm)
        found |= pair(f"{at}.0.latents_layer_norm", layer.latent_norm)
        found |= pair(f"{at}.1.ln", layer.feed_forward_norm)
        found[f"{at}.0.q_proj.weight"] = of(layer.attention.to_query.weight)
        found |= {f"{at}.0.{name}_proj.weight": half for name, half in zip("kv", key_value, strict=True)}
        found[f"{at}.0.output_proj.weight"] = of(layer.attention.to_out.weight)
        found[f"{at}.1.fc.weight"] = of(layer.expand.weight)
        found[f"{at}.1.c_proj.weight"] = of(layer.contract.weight)
    return found


def test_parity_with_idefics(hold_parity: Callable[..., None]) -> None:
    from transformers import IdeficsConfig
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    config = IdeficsConfig(vision_config={"embed_dim": WIDTH}, perceiver_config={"qk_layer_norms_perceiver": False})
    theirs = IdeficsPerceiverResampler(config, WIDTH, depth=3, n_heads=4, head_dim=8, n_latents=7)
    ours = PerceiverResampler(WIDTH, 10, LANGUAGE_WIDTH, 7, 3, 4, 8, activation=F.relu)
    ours.project = nn.Identity()  # Idefics leaves it to the gated layers

    def without_time(tiles: Tensor) -> Tensor:
        with torch.no_grad():
            ours.time_embeddings.zero_()
        found: Tensor = ours(VisualFeatures(tiles, [1, 1, 1], [3])).embeddings
        return found.unflatten(0, (3, 7))

    hold_parity(ours, theirs, lambda of: named(ours, of), without_time, patches(3, 10), theirs)


def test_t38_the_number_of_tokens_is_that_of_the_latents_whatever_comes_in() -> None:
    connector = PerceiverResampler(WIDTH, 49, LANGUAGE_WIDTH, depth=2).eval()
    for tiles, count in ((1, 1), (1, 49), (8, 49), (2, 49), (5, 49)):  # the last: more crops than the usual
        assert connect(connector, patches(tiles, count)).shape == (64, LANGUAGE_WIDTH)
        assert connector.tokens_per_item(tiles) == 64


def test_t38_padded_patches_change_nothing_not_even_if_they_are_no_numbers() -> None:
    connector, tiles = make(), patches(2)
    mask = torch.tensor([[True, True, True, False, False], [True, False, True, True, True]])
    expected = connect(connector, tiles, mask)
    tiles[~mask] = float("nan")
    tiles.requires_grad_()
    found = connect(connector, tiles, mask)
    assert torch.equal(found, expected)
    found.square().sum().backward()
    assert tiles.grad is not None and not tiles.grad[~mask].any() and tiles.grad[mask].isfinite().all()


@settings(max_examples=25, deadline=None)
@given(
    tiles_per_item=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    real=st.lists(st.integers(1, PATCHES), min_size=24, max_size=24),
)
def test_t38_an_item_becomes_the_same_alone_and_unpadded(tiles_per_item: list[int], real: list[int]) -> None:
    """Items of other lengths beside it, padded patches in its tiles; some items longer than max_frames."""
    connector, tiles = make(), patches(sum(tiles_per_item))
    mask = torch.arange(PATCHES) < torch.tensor(real[: len(tiles)]).unsqueeze(1)
    found = connector(VisualFeatures(tiles, tiles_per_item, [len(tiles_per_item)], mask)).embeddings
    first = 0
    for item, count in enumerate(tiles_per_item):
        mine = slice(first, first + count)
        timed = tiles[mine] + connector.times([count])
        alone = connector.resample(timed[mask[mine]].unsqueeze(0))
        torch.testing.assert_close(found[6 * item : 6 * item + 6], alone[0])
        first += count


def test_t39_latents_are_parameters_with_gradient() -> None:
    connector = make()
    connect(connector, patches(2)).square().sum().backward()
    assert isinstance(connector.latents, nn.Parameter) and connector.latents.shape == (6, WIDTH)
    assert connector.latents.grad is not None and connector.latents.grad.abs().sum(1).min() > 0


def test_t39_an_mlp_and_a_plain_transformer_take_its_place_with_no_other_change() -> None:
    configs = {name: compose([f"model/connector={name}"]).config for name in ("perceiver", "mlp", "transformer_mapper")}
    for config in configs.values():
        connector = build(config["model"].pop("connector"))(WIDTH, PATCHES, LANGUAGE_WIDTH)
        tokens = connector(VisualFeatures(patches(3), [1, 2], [2]))
        assert tokens.embeddings.shape == (sum(map(connector.tokens_per_item, [1, 2])), LANGUAGE_WIDTH)
    assert configs["perceiver"] == configs["mlp"] == configs["transformer_mapper"]


def test_t41_frames_in_another_order_are_another_video_because_of_the_time_embeddings_alone() -> None:
    connector, video = make(), patches(4)
    assert not torch.allclose(connect(connector, video), connect(connector, video.flip(0)), atol=1e-3)
    nn.init.zeros_(connector.time_embeddings)
    torch.testing.assert_close(connect(connector, video), connect(connector, video.flip(0)))


def test_t41_an_image_is_a_video_of_one_frame() -> None:
    connector, tiles = make(), patches(3)
    as_images = connector(VisualFeatures(tiles, [1, 1, 1], [3])).embeddings
    torch.testing.assert_close(connector.connect_tiles(tiles).flatten(0, 1), as_images)
    nn.init.zeros_(connector.time_embeddings)
    assert not torch.allclose(connector(VisualFeatures(tiles, [1, 1, 1], [3])).embeddings, as_images, atol=1e-3)


def test_t41_each_frame_has_its_embedding_and_longer_videos_interpolate_them() -> None:
    connector = make(max_frames=4)
    with torch.no_grad():
        connector.time_embeddings.copy_(torch.arange(4.0).unsqueeze(1).expand(-1, WIDTH))
    assert connector.times([3, 1])[:, 0, 0].tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(connector.times([7])[:, 0, 0], torch.arange(7) / 2)
    long = F.interpolate(connector.time_embeddings.mT[None], 30, mode="linear", align_corners=True)[0].mT
    torch.testing.assert_close(connector.times([2, 30])[2:, 0], long)
    assert connector.times([4])[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert connect(connector, patches(30)).shape == (6, LANGUAGE_WIDTH)


def test_there_is_at_least_one_frame() -> None:
    with pytest.raises(ValueError, match="max_frames 0"):
        make(max_frames=0)


def test_the_activation_is_a_choice_of_the_config() -> None:
    node = {
        "_target_": "vlmtrain.connectors.perceiver.PerceiverResampler",
        "_partial_": True,
        "activation": {"_target_": "vlmtrain.nn.squared_relu.squared_relu", "_partial_": True},
    }
    connector = build(node)(WIDTH, PATCHES, LANGUAGE_WIDTH, depth=1)
    x = torch.linspace(-2, 2, 5)
    assert connector.layers[0].activation(x).tolist() == squared_relu(x).tolist() == [0, 0, 0, 1, 4]
