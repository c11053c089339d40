"""The C-Abstractor: where its tokens look, and what it is made of."""

import pytest
import torch

from vlmtrain.connectors.conv_abstractor import ConvAbstractor


def make(patches: int = 65, num_tokens: int = 16, depth: int = 1) -> ConvAbstractor:
    torch.manual_seed(0)
    return ConvAbstractor(12, patches, 20, num_tokens, width=16, depth=depth).eval()


@pytest.mark.parametrize(("patches", "num_tokens"), [(65, 16), (64, 9), (17, 25)])
def test_any_square_of_tokens_from_any_square_of_patches(patches: int, num_tokens: int) -> None:
    tokens = make(patches, num_tokens).connect_tiles(torch.randn(2, patches, 12))
    assert tokens.shape == (2, num_tokens, 20)


def test_blocks_with_squeeze_excitation_before_and_after_the_pooling() -> None:
    from timm.models.regnet import Bottleneck

    connector = make(depth=3)
    for stage in (connector.before, connector.after):
        blocks = [module for module in stage.modules() if isinstance(module, Bottleneck)]
        assert len(blocks) == 3 and all(type(block.se).__name__ == "SEModule" for block in blocks)


def test_a_token_changes_most_where_the_image_changes() -> None:
    """Locality is what the abstractor is for: a corner of the grid moves the token of that corner, on average."""
    connector, patches = make(), torch.randn(64, 65, 12)
    changed = patches.clone()
    changed[:, 1 + 8 * 6 + 6] += 1.0  # row 6, column 6: the window of the last of 4 x 4 tokens
    moved = (connector.connect_tiles(changed) - connector.connect_tiles(patches)).norm(dim=-1).mean(0)
    assert moved.argmax() == 15 and moved[0] < 0.05 * moved[15]


def test_the_class_token_is_dropped_and_positions_are_told_apart() -> None:
    connector, patches = make(), torch.randn(1, 1, 12).expand(-1, 65, -1).clone()
    before = connector.connect_tiles(patches)
    patches[:, 0] += 1.0
    assert torch.equal(connector.connect_tiles(patches), before)
    connector.positions.data.normal_()
    inner = connector.connect_tiles(patches)[0, [5, 6, 9, 10]]  # away from the border, which padding gives away
    assert torch.cdist(inner, inner).add(torch.eye(4)).min() > 0.01


@pytest.mark.parametrize(("num_tokens", "choose"), [(10, 9), (0, 1), (140, 144)])
def test_tokens_that_are_no_square_are_refused(num_tokens: int, choose: int) -> None:
    with pytest.raises(ValueError, match=f"num_tokens {num_tokens} is no square.*choose {choose}"):
        make(num_tokens=num_tokens)


def test_without_blocks_it_is_another_connector() -> None:
    with pytest.raises(ValueError, match=r"depth 0.*model/connector=pooled_mlp"):
        make(depth=0)
