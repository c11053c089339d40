"""The resampler of Idefics2 against transformers' Idefics2Connector."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.batch import VisualFeatures
from vlmtrain.connectors.perceiver_idefics2 import NORM_EPS, Idefics2Resampler
from vlmtrain.nn.swiglu import SwiGLU

WIDTH, PATCHES, LANGUAGE_WIDTH, LATENTS = 12, 9, 16, 5
MASK = torch.arange(PATCHES) < torch.tensor([9, 4, 1]).unsqueeze(1)


def named(ours: Idefics2Resampler, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
    """`of` our parameters, under the names of Idefics2Connector."""

    def mlp(prefix: str, module: SwiGLU) -> dict[str, Tensor]:
        parts = {"gate_proj": module.to_switch, "up_proj": module.expand, "down_proj": module.contract}
        return {f"{prefix}.{name}.weight": of(part.weight) for name, part in parts.items()}

    resampler = "perceiver_resampler"
    found = {**mlp("modality_projection", ours.project), f"{resampler}.latents": of(ours.latents)}
    found[f"{resampler}.norm.weight"] = of(ours.norm.weight)
    for index, layer in enumerate(ours.layers):
        at, key_value = f"{resampler}.layers.{index}", of(layer.attention.to_key_value.weight).chunk(2)
        found[f"{at}.input_context_norm.weight"] = of(layer.context_norm.weight)
        found[f"{at}.input_latents_norm.weight"] = of(layer.latent_norm.weight)
        found[f"{at}.post_attention_layernorm.weight"] = of(layer.feed_forward_norm.weight)
        found[f"{at}.self_attn.q_proj.weight"] = of(layer.attention.to_query.weight)
        found |= {f"{at}.self_attn.{name}_proj.weight": half for name, half in zip("kv", key_value, strict=True)}
        found[f"{at}.self_attn.o_proj.weight"] = of(layer.attention.to_out.weight)
        found |= mlp(f"{at}.mlp", layer.feed_forward)
    return found


def make() -> Idefics2Resampler:
    torch.manual_seed(0)
    return Idefics2Resampler(WIDTH, PATCHES, LANGUAGE_WIDTH, LATENTS, 3, 4, 2, 6).eval()


def tiles() -> Tensor:
    return torch.randn(3, PATCHES, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("patch_mask", [None, MASK], ids=["whole", "padded"])
def test_parity_with_idefics2(patch_mask: Tensor | None, hold_parity: Callable[..., None]) -> None:
    from transformers import Idefics2Config
    from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector

    sizes = {"resampler_n_latents": LATENTS, "resampler_depth": 3, "resampler_n_heads": 4, "resampler_head_dim": 6}
    config = Idefics2Config(
        text_config={"model_type": "mistral", "hidden_size": LANGUAGE_WIDTH, "intermediate_size": 56},
        vision_config={"hidden_size": WIDTH},
        perceiver_config={**sizes, "num_key_value_heads": 2, "hidden_size": LANGUAGE_WIDTH, "rms_norm_eps": NORM_EPS},
    )
    ours, theirs = make(), Idefics2Connector(config).eval()
    seen = torch.ones(3, PATCHES, dtype=torch.bool) if patch_mask is None else patch_mask
    hold_parity(
        ours,
        theirs,
        lambda of: named(ours, of),
        lambda patches: ours(VisualFeatures(patches, [1, 2], [2], patch_mask)).embeddings.unflatten(0, (3, LATENTS)),
        tiles(),
        lambda patches: theirs(patches, seen),
    )


def test_it_makes_its_tokens_per_tile() -> None:
    """An image cut into four crops and a thumbnail is 5 x 64 tokens in Idefics2."""
    connector = Idefics2Resampler(WIDTH, PATCHES, LANGUAGE_WIDTH)
    assert connector.tokens_per_item(5) == 320


def test_t38_padded_patches_change_nothing_not_even_if_they_are_no_numbers() -> None:
    connector, patches = make(), tiles()
    expected = connector(VisualFeatures(patches, [3], [1], MASK)).embeddings
    patches[~MASK] = float("nan")
    assert torch.equal(connector(VisualFeatures(patches, [3], [1], MASK)).embeddings, expected)


def test_the_latents_start_different_from_each_other() -> None:
    tokens = make()(VisualFeatures(tiles(), [3], [1])).embeddings[:LATENTS]
    assert torch.cdist(tokens, tokens).add(torch.eye(LATENTS)).min() > 0.1


def test_key_value_heads_that_do_not_divide_the_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="num_key_value_heads 3 does not divide num_heads 4"):
        Idefics2Resampler(WIDTH, PATCHES, LANGUAGE_WIDTH, num_heads=4, num_key_value_heads=3)
