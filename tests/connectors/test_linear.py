"""One linear layer over each patch."""

import torch

from vlmtrain.connectors.linear import LinearConnector


def test_each_patch_becomes_one_token_of_its_own() -> None:
    connector, patches = LinearConnector(12, 9, 20), torch.randn(2, 9, 12)
    tokens = connector.connect_tiles(patches)
    torch.testing.assert_close(tokens[1, 4], connector.project(patches[1, 4]))
