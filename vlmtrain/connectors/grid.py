"""The square grid that the patches of a tile come from, for connectors that merge neighbours.

Encoders give patches row after row from the top left, [N, W, h, w] -> [N, h * w, W] (Flamingo, Alayrac et al. 2022,
section 2.1), some with a class token before them.  Both are undone here and nowhere else.
"""

from math import isqrt

from einops import rearrange
from torch import Tensor

TAKE_ANY_NUMBER = "model/connector=mlp or model/connector=perceiver"


def grid_side(patches_per_tile: int) -> int:
    """Rows (and columns) of the grid; a class token before the patches does not count."""
    side = isqrt(patches_per_tile)
    if side < 1 or patches_per_tile - side**2 not in (0, 1):
        raise ValueError(
            f"{patches_per_tile} patches per tile are no square grid (with or without a class token), and this "
            "connector merges neighbours of one; choose an encoder with a square grid, or a connector that takes any "
            f"number of patches: {TAKE_ANY_NUMBER}."
        )
    return side


def divided_side(patches_per_tile: int, name: str, factor: int) -> int:
    """Rows (and columns) that are left when squares of `factor` x `factor` patches become one.

    Args:
        patches_per_tile: P of the encoder.
        name: of the argument that gives `factor`, for the message.
        factor: side of a square.
    """
    side = grid_side(patches_per_tile)
    if factor < 1 or side % factor:
        divisors = ", ".join(str(number) for number in range(1, side + 1) if side % number == 0)
        raise ValueError(
            f"{name} {factor} does not divide the {side} x {side} grid of an encoder with {patches_per_tile} patches "
            f"per tile; choose one of {divisors}, or a connector that takes any number of patches: "
            f"{TAKE_ANY_NUMBER}."
        )
    return side // factor


def to_grid(patches: Tensor) -> Tensor:
    """[N, P, W] -> [N, h, w, W]; a class token is dropped."""
    side = grid_side(patches.shape[1])
    return rearrange(patches[:, -(side**2) :], "n (h w) c -> n h w c", h=side)


def space_to_depth(grid: Tensor, factor: int) -> Tensor:
    """[N, h, w, W] -> [N, h / f, w / f, f * f * W]: the patches of a square side by side, row after row."""
    return rearrange(grid, "n (h a) (w b) c -> n h w (a b c)", a=factor, b=factor)
