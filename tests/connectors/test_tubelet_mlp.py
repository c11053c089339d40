"""A token holds its place in consecutive frames, in their order."""

import pytest
import torch
from torch import nn

from vlmtrain.batch import VisualFeatures
from vlmtrain.connectors.tubelet_mlp import TubeletMLP


def tokens_of(values: list[float], tiles_per_item: list[int], num_frames: int) -> tuple[list[list[float]], list[int]]:
    """Frames of four patches, all of one value each -> what each tubelet holds."""
    connector = TubeletMLP(1, 4, num_frames, num_frames=num_frames, window=2, num_layers=1)
    nn.init.eye_(connector.layers[0].weight)
    nn.init.zeros_(connector.layers[0].bias)
    patches = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1).expand(-1, 4, 1)
    tokens = connector(VisualFeatures(patches, tiles_per_item, [len(tiles_per_item)]))
    return tokens.embeddings.tolist(), tokens.tokens_per_item


def test_frames_stand_side_by_side_in_their_order_and_never_with_another_items() -> None:
    held, per_item = tokens_of([1, 2, 3, 4, 5, 6], [4, 2], 2)
    assert held == [[1, 2], [3, 4], [5, 6]] and per_item == [2, 1]


def test_an_image_and_a_last_frame_are_repeated() -> None:
    held, per_item = tokens_of([1, 2, 3, 4, 5], [1, 4], 3)
    assert held == [[1, 1, 1], [2, 3, 4], [5, 5, 5]] and per_item == [1, 2]


def test_places_are_kept_and_a_window_is_its_mean() -> None:
    connector = TubeletMLP(1, 17, 2, num_frames=2, window=2, num_layers=1)
    nn.init.eye_(connector.layers[0].weight)
    nn.init.zeros_(connector.layers[0].bias)
    grid = torch.arange(16.0).reshape(1, 16, 1)
    frames = torch.cat([torch.full((2, 1, 1), 100.0), torch.cat([grid, -grid])], dim=1)
    tokens = connector(VisualFeatures(frames, [2], [1])).embeddings
    assert tokens.tolist() == [[2.5, -2.5], [4.5, -4.5], [10.5, -10.5], [12.5, -12.5]]


def test_a_tubelet_has_a_frame() -> None:
    with pytest.raises(ValueError, match="num_frames 0"):
        TubeletMLP(1, 4, 2, num_frames=0)
