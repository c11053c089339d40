"""The mapper against torch's own transformer layers, and what padding must not do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vlmtrain.batch import VisualFeatures
from vlmtrain.connectors.transformer_mapper import TransformerMapper

WIDTH, PATCHES, LANGUAGE_WIDTH, TOKENS = 12, 7, 16, 3


def make() -> TransformerMapper:
    torch.manual_seed(0)
    return TransformerMapper(WIDTH, PATCHES, LANGUAGE_WIDTH, TOKENS, depth=2, num_heads=4, head_width=4).eval()


def tiles() -> Tensor:
    return torch.randn(3, PATCHES, WIDTH, generator=torch.Generator().manual_seed(1))


class Reference(nn.Module):
    """ClipCap's mapper put together from torch's pre-norm encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, LANGUAGE_WIDTH)
        self.constants = nn.Parameter(torch.empty(TOKENS, LANGUAGE_WIDTH))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                LANGUAGE_WIDTH, 4, 2 * LANGUAGE_WIDTH, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(2)
        )
        for layer in self.layers:
            layer.self_attn.in_proj_bias = None

    def forward(self, patches: Tensor) -> Tensor:
        x = torch.cat([self.project(patches), self.constants.expand(len(patches), -1, -1)], dim=1)
        for layer in self.layers:
            x = layer(x)
        return x[:, -TOKENS:]


def named(ours: TransformerMapper, of: Callable[[nn.Parameter], Tensor]) -> dict[str, Tensor]:
    pairs = {"project": ours.project}
    found = {"constants": of(ours.constants)}
    for index, layer in enumerate(ours.layers):
        at = f"layers.{index}"
        pairs |= {f"{at}.norm1": layer.attention_norm, f"{at}.norm2": layer.feed_forward_norm}
        pairs |= {f"{at}.linear1": layer.expand, f"{at}.linear2": layer.contract}
        pairs[f"{at}.self_attn.out_proj"] = layer.to_out
        found[f"{at}.self_attn.in_proj_weight"] = of(layer.to_query_key_value.weight)
    return found | {
        f"{at}.{kind}": of(getattr(part, kind)) for at, part in pairs.items() for kind in ("weight", "bias")
    }


def test_parity_with_torch(hold_parity: Callable[..., None]) -> None:
    ours, theirs = make(), Reference()
    hold_parity(ours, theirs, lambda of: named(ours, of), ours.connect_tiles, tiles(), theirs)


def test_t38_padded_patches_change_nothing_not_even_if_they_are_no_numbers() -> None:
    connector, patches = make(), tiles()
    mask = torch.arange(PATCHES) < torch.tensor([7, 4, 1]).unsqueeze(1)
    expected = connector(VisualFeatures(patches, [2, 1], [2], mask)).embeddings
    patches[~mask] = float("nan")
    assert torch.equal(connector(VisualFeatures(patches, [2, 1], [2], mask)).embeddings, expected)
    alone = connector.connect_tiles(patches[1:2, :4])[0]
    torch.testing.assert_close(expected[TOKENS : 2 * TOKENS], alone)
