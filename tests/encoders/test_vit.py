"""The native vision transformer: statements T01-T08, its folder, and the layer that is read."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vlmtrain.batch import VisualBatch
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.encoders.vit_files import POSITIONS, pretrained, save_pretrained
from vlmtrain.encoders.vit_positions import Learned1D, Learned2D, Positions, RelativeBias1D, RelativeBias2D

ALL_POSITIONS = [Learned1D, Learned2D, RelativeBias1D, RelativeBias2D]


def make(positions: type[Positions] = Learned1D, **settings: object) -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "width": 24, "depth": 3, "num_heads": 4, **settings}
    encoder = VisionTransformer(positions=positions, **sizes)
    for parameter in encoder.parameters():  # zeros and ones would hide a wrong bias or norm
        nn.init.normal_(parameter, std=0.2)
    return encoder.eval()


def images(count: int = 2, size: int = 32) -> VisualBatch:
    pixels = torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return VisualBatch(pixels, [1] * count, [1] * count)


def normalised(count: int = 2, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("patch_size", [16, 32])
def test_t01_every_patch_passes_one_linear_projection(patch_size: int) -> None:
    encoder = make(image_size=64, patch_size=patch_size)
    nn.init.zeros_(encoder.positions.vectors)
    nn.init.normal_(encoder.patch_projection.weight, std=0.02)
    pixels = normalised(size=64)
    tokens, grid = encoder.embed_patches(pixels)
    assert tokens.shape == (2, (64 // patch_size) ** 2 + 1, 24)
    assert grid == (64 // patch_size, 64 // patch_size)
    flat = rearrange(pixels, "n c (r a) (s b) -> n (r s) (c a b)", a=patch_size, b=patch_size)
    weight = encoder.patch_projection.weight.flatten(1)
    torch.testing.assert_close(tokens[:, 1:], F.linear(flat, weight, encoder.patch_projection.bias), atol=1e-5, rtol=0)


def test_t02_class_token_is_one_parameter_at_index_0() -> None:
    encoder = make()
    patches = encoder(images()).patches
    assert patches.shape == (2, encoder.patches_per_tile, encoder.width) == (2, 17, 24)
    patches[:, 0].sum().backward()
    assert dict(encoder.named_parameters())["class_token"].grad.abs().sum() > 0
    without = make(keep_class_token=False)
    assert without.patches_per_tile == 16
    torch.testing.assert_close(without(images()).patches, patches[:, 1:])


def test_t03_default_positions_are_learned_one_per_place() -> None:
    encoder = make()
    assert type(encoder.positions) is Learned1D
    assert encoder.positions.vectors.shape == (17, 24)
    encoder(images()).patches.square().sum().backward()
    assert encoder.positions.vectors.grad.abs().sum() > 0
    nn.init.zeros_(encoder.positions.vectors)
    order = torch.randperm(16)
    tiles = rearrange(normalised(), "n c (r a) (s b) -> n (r s) c a b", a=8, b=8)
    shuffled = rearrange(tiles[:, order], "n (r s) c a b -> n c (r a) (s b)", r=4)
    straight, mixed = encoder.encode_tiles(normalised()), encoder.encode_tiles(shuffled)
    torch.testing.assert_close(straight[:, 1:][:, order], mixed[:, 1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", ALL_POSITIONS)
def test_t06_positions_are_the_only_difference(positions: type[Positions]) -> None:
    default, chosen = make(), make(positions)

    def others(encoder: nn.Module) -> set[str]:
        return {name for name in encoder.state_dict() if not name.startswith("positions.")}

    assert others(default) == others(chosen)
    assert chosen(images()).patches.shape == default(images()).patches.shape


def test_t07_blocks_are_pre_norm_with_gelu() -> None:
    encoder = make()
    block, x = encoder.blocks[0], torch.randn(2, 5, 24)
    hidden = F.layer_norm(x, (24,), block.attention_norm.weight, block.attention_norm.bias, 1e-6)
    after = x + block.attention(hidden, None)
    hidden = F.layer_norm(after, (24,), block.mlp_norm.weight, block.mlp_norm.bias, 1e-6)
    wanted = after + block.mlp[2](F.gelu(block.mlp[0](hidden)))
    torch.testing.assert_close(block(x, None), wanted)
    for layer in (block.attention.to_out, block.mlp[2]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(block(x, None), x)


def test_norms_have_the_epsilon_of_vit() -> None:
    encoder = VisionTransformer(16, 8, 24, 2, 4)
    assert {part.eps for part in encoder.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-6}


@pytest.mark.parametrize("positions", ALL_POSITIONS)
def test_t08_attention_is_global_and_can_be_read(positions: type[Positions]) -> None:
    encoder, pixels = make(positions), normalised()
    before = encoder.encode_tiles(pixels)
    maps = encoder.attention_maps(pixels)
    assert maps.shape == (3, 2, 4, 17, 17)
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, 2, 4, 17))
    assert torch.equal(encoder.encode_tiles(pixels), before)
    changed = pixels.clone()
    changed[..., 24:, 24:] += 1
    assert ((encoder.encode_tiles(changed) - before).abs().amax(-1) > 1e-6).all()


def test_attention_maps_are_what_the_forward_pass_uses() -> None:
    encoder = make(RelativeBias2D)
    tokens, grid = encoder.embed_patches(normalised())
    block = encoder.blocks[0]
    hidden = block.attention_norm(tokens)
    _, _, value = block.attention._project(hidden)
    mixed = rearrange(encoder.attention_maps(normalised())[0] @ value, "n h t d -> n t (h d)")
    wanted = block.attention(hidden, encoder.positions.attention_bias(0, grid))
    torch.testing.assert_close(block.attention.to_out(mixed), wanted)


def test_the_folder_is_what_transformers_reads(tmp_path: Path) -> None:
    from transformers import ViTModel

    encoder = make()
    save_pretrained(encoder, tmp_path / "ours")
    theirs = ViTModel.from_pretrained(tmp_path / "ours", add_pooling_layer=False).eval()
    pixels = (images().pixels.float() - 127.5) / 127.5
    with torch.no_grad():
        torch.testing.assert_close(theirs(pixels).last_hidden_state, encoder(images()).patches, atol=1e-5, rtol=0)
    theirs.save_pretrained(tmp_path / "theirs")
    again = pretrained(str(tmp_path / "theirs"))
    torch.testing.assert_close(again(images()).patches, encoder(images()).patches)


@pytest.mark.parametrize("positions", ALL_POSITIONS)
def test_saving_and_loading_changes_nothing(positions: type[Positions], tmp_path: Path) -> None:
    encoder = make(positions)
    encoder.pixel_mean.fill_(100.0)
    save_pretrained(encoder, tmp_path)
    again = pretrained(str(tmp_path))
    assert torch.equal(again(images()).patches, encoder(images()).patches)
    assert POSITIONS[positions.__name__] is positions and again.source == str(tmp_path)
    with torch.device("meta"):
        assert pretrained(str(tmp_path)).class_token.device.type == "meta"


def test_tap_reads_an_earlier_layer_without_norm_and_builds_no_later_one(tmp_path: Path) -> None:
    encoder = make()
    save_pretrained(encoder, tmp_path)
    x, _ = encoder.embed_patches(normalised())
    for block in list(encoder.blocks)[:2]:
        x = block(x, None)
    tapped = pretrained(str(tmp_path), tap=-2)
    torch.testing.assert_close(tapped.encode_tiles(normalised()), x)
    assert len(tapped.blocks) == 2
    assert {name.split(".")[0] for name, _ in tapped.named_parameters()} == {
        "class_token",
        "patch_projection",
        "positions",
        "blocks",
    }
    with pytest.raises(ValueError, match="tap=-1"):
        save_pretrained(tapped, tmp_path)


@pytest.mark.parametrize("tap", [0, 1, -4])
def test_tap_out_of_bounds_names_the_bounds(tap: int) -> None:
    with pytest.raises(ValueError, match="-3"):
        make(tap=tap)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="patch_size 7"):
        make(patch_size=7)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        pretrained(str(tmp_path))


def test_gradient_checkpointing_changes_no_gradient_and_recomputes() -> None:
    runs, gradients = [], []
    for is_on in (False, True):
        encoder = make()
        if is_on:
            encoder.enable_gradient_checkpointing()
        calls: list[int] = []
        encoder.blocks[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        encoder(images()).patches.square().sum().backward()
        gradients.append([parameter.grad for parameter in encoder.parameters()])
        runs.append(len(calls))
    assert runs == [1, 2]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)
