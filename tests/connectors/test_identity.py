"""Patches go on as they are, or not at all."""

import pytest
import torch

from vlmtrain.connectors.identity import IdentityConnector


def test_nothing_changes() -> None:
    patches = torch.randn(2, 9, 12)
    connector = IdentityConnector(12, 9, 12)
    assert connector.connect_tiles(patches) is patches and not list(connector.parameters())


def test_other_widths_are_refused_with_both_and_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"width 12 is not the language model's 20.* model/connector=linear"):
        IdentityConnector(12, 9, 20)
