"""Signed distances to the shapes: negative inside, in units of the thing's radius, on arrays of points."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]


def distance(shape: str, x: Field, y: Field) -> Field:
    """How far each point lies outside the shape of radius 1 about the origin; near its edge the distance is exact."""
    measure = _MEASURES.get(shape)
    if measure is None:
        raise ValueError(f"{shape!r} is no shape: use one of {', '.join(_MEASURES)}")
    return measure(x, y)


def _circle(x: Field, y: Field) -> Field:
    return np.sqrt(x * x + y * y) - np.float32(0.92)


def _ring(x: Field, y: Field) -> Field:
    return np.abs(np.sqrt(x * x + y * y) - np.float32(0.72)) - np.float32(0.25)


def _box(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    """Distance to an upright box, with the corner distances exact so that shadows and edges go round."""
    across, down = np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height)
    outside = np.sqrt(np.maximum(across, 0) ** 2 + np.maximum(down, 0) ** 2)
    return outside + np.minimum(np.maximum(across, down), 0)


def _square(x: Field, y: Field) -> Field:
    return _box(x, y, 0.69, 0.69) - np.float32(0.06)


def _cross(x: Field, y: Field) -> Field:
    return np.minimum(_box(x, y, 0.88, 0.24), _box(x, y, 0.24, 0.88)) - np.float32(0.04)


def _triangle(x: Field, y: Field) -> Field:
    """Three half planes about a centre set a little low, so that the triangle looks centred in its circle."""
    below = y - np.float32(0.06)
    slope = np.float32(np.sqrt(3) / 2) * np.abs(x) - np.float32(0.5) * below
    return np.maximum(slope, below) - np.float32(0.5)


def _star(x: Field, y: Field) -> Field:
    """Five-fold symmetry folds every point onto one edge, from a tip to the notch beside it."""
    turn = np.arctan2(x, -y)
    sector = np.float32(2 * np.pi / 5)
    folded = np.abs(turn - sector * np.round(turn / sector))
    length = np.sqrt(x * x + y * y)
    notch_x, notch_y = 0.46 * np.sin(np.pi / 5), 0.46 * np.cos(np.pi / 5)
    edge_x, edge_y = notch_x, notch_y - 1.0
    norm = np.hypot(edge_x, edge_y)
    across, up = length * np.sin(folded), length * np.cos(folded) - np.float32(1.0)
    return (across * np.float32(-edge_y / norm) + up * np.float32(edge_x / norm)) - np.float32(0.01)


def _heart(x: Field, y: Field) -> Field:
    """A square on its corner under two discs that stand on its upper sides."""
    half = 0.5
    lower = y - np.float32(0.10)
    turned_x = (x + lower) * np.float32(np.sqrt(0.5))
    turned_y = (x - lower) * np.float32(np.sqrt(0.5))
    box = _box(turned_x, turned_y, half, half)
    centre = half * np.sqrt(0.5)
    lobe_x, lobe_y = np.abs(x) - np.float32(centre), lower + np.float32(centre)
    return np.minimum(box, np.sqrt(lobe_x * lobe_x + lobe_y * lobe_y) - np.float32(half)) - np.float32(0.06)


_MEASURES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
    "cross": _cross,
}
