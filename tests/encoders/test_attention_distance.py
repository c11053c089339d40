"""T09: how far heads look."""

import math

import pytest
import torch

from vlmtrain.encoders.attention_distance import mean_attention_distance
from vlmtrain.encoders.vit import VisionTransformer

ROWS, COLUMNS, PATCH = 3, 4, 8
PATCHES = ROWS * COLUMNS


def maps_of(between: torch.Tensor) -> torch.Tensor:
    """One layer, image and head; the class token attends to and is attended to a little."""
    whole = torch.full((PATCHES + 1, PATCHES + 1), 1 / (PATCHES + 1))
    whole[1:, 0] = 0.25
    whole[1:, 1:] = 0.75 * between
    return whole[None, None, None]


def test_t09_attention_to_oneself_has_no_distance() -> None:
    assert mean_attention_distance(maps_of(torch.eye(PATCHES)), (ROWS, COLUMNS), PATCH).item() == 0


def test_t09_attention_to_the_right_neighbour_is_one_patch_away() -> None:
    neighbour = torch.zeros(PATCHES, PATCHES)
    for query in range(PATCHES):
        at_edge = query % COLUMNS == COLUMNS - 1
        neighbour[query, query - 1 if at_edge else query + 1] = 1  # at the edge, to the left one
    assert mean_attention_distance(maps_of(neighbour), (ROWS, COLUMNS), PATCH).item() == pytest.approx(PATCH)


def test_t09_even_attention_is_the_mean_distance_of_all_pairs() -> None:
    places = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]
    brute = sum(math.dist(one, other) for one in places for other in places) * PATCH / PATCHES**2
    even = torch.full((PATCHES, PATCHES), 1 / PATCHES)
    assert mean_attention_distance(maps_of(even), (ROWS, COLUMNS), PATCH).item() == pytest.approx(brute, rel=1e-5)


def test_t09_the_class_token_does_not_change_the_value() -> None:
    maps = torch.rand(2, 3, 4, PATCHES + 1, PATCHES + 1).softmax(-1)
    without = maps[..., 1:, 1:] / maps[..., 1:, 1:].sum(-1, keepdim=True)
    wanted = mean_attention_distance(without, (ROWS, COLUMNS), PATCH, prefix_tokens=0)
    found = mean_attention_distance(maps, (ROWS, COLUMNS), PATCH)
    assert found.shape == (2, 4)
    torch.testing.assert_close(found, wanted)
    maps[..., 0, :] = 0
    torch.testing.assert_close(mean_attention_distance(maps, (ROWS, COLUMNS), PATCH), wanted)


def test_t09_is_reported_per_layer_and_head_of_an_encoder() -> None:
    encoder = VisionTransformer(32, 8, 24, 3, 4)
    found = mean_attention_distance(encoder.attention_maps(torch.randn(2, 3, 32, 32)), (4, 4), 8)
    assert found.shape == (3, 4) and (found > 0).all() and (found < 8 * math.dist((0, 0), (3, 3))).all()
    with pytest.raises(ValueError, match="not those of a 4x5 grid"):
        mean_attention_distance(encoder.attention_maps(torch.randn(1, 3, 32, 32)), (4, 5), 8)
