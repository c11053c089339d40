"""How a pen writes the ten numerals: strokes through a few points, several ways for most of them."""

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]  # [n, 2], x and y from 0 to 1, y downwards
Stroke = tuple[tuple[float, float], ...]
Numeral = tuple[Stroke, ...]

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_WRITTEN = (
    ("50,4 22,20 13,50 22,80 50,96 78,80 87,50 78,20 50,4",),
    (
        "55,4 52,50 50,96",
        "55,4 52,50 50,96 / 28,28 45,16 55,4",
        "55,4 52,50 50,96 / 28,28 55,4 / 22,96 80,96",
    ),
    (
        "16,26 34,6 66,6 80,28 58,60 16,94 / 16,94 86,94",
        "20,20 50,4 78,24 60,58 30,90 16,88 30,78 56,92 88,90",
    ),
    (
        "18,16 48,4 76,18 70,38 44,46 / 44,46 76,56 82,78 52,96 16,86",
        "18,6 78,6 / 78,6 44,42 / 44,46 76,56 82,78 52,96 16,86",
    ),
    (
        "32,4 24,34 14,62 / 14,62 90,60 / 68,28 64,96",
        "66,4 12,66 / 12,66 90,66 / 66,4 66,96",
    ),
    ("80,6 28,7 / 28,7 24,44 / 24,44 54,36 82,54 78,82 48,96 16,86",),
    (
        "72,5 42,20 20,54 24,84 50,96 78,84 76,60 50,50 22,66",
        "50,4 26,40 20,72 48,96 76,80 68,58 42,56 22,74",
    ),
    (
        "14,8 86,7 / 86,7 60,46 42,96",
        "14,8 86,7 / 86,7 60,46 42,96 / 32,52 82,50",
    ),
    (
        "50,49 26,34 28,12 52,4 74,14 72,36 50,49 24,64 22,86 50,96 78,86 76,64 50,49",
        "78,16 52,4 26,16 34,38 68,62 74,86 50,96 26,86 34,62 66,38 78,16",
    ),
    (
        "80,28 60,47 32,46 18,27 36,6 68,7 80,28 / 80,28 76,62 66,96",
        "80,28 60,47 32,46 18,27 36,6 68,7 80,28 / 80,28 80,68 56,95 22,88",
    ),
)
"""Of each numeral the ways to write it: points in hundredths, and a slash where the pen is lifted."""


def _read(way: str) -> Numeral:
    strokes = [[point.split(",") for point in stroke.split()] for stroke in way.split("/")]
    return tuple(tuple((int(x) / 100, int(y) / 100) for x, y in stroke) for stroke in strokes)


WAYS = tuple(tuple(_read(way) for way in ways) for ways in _WRITTEN)
"""The same in the unit of `Points`."""


def smooth(points: Points, steps: int = 5) -> Points:
    """A curve through all points, `steps` pieces between two (Catmull and Rom 1974); two points make a line."""
    if len(points) == 2:
        return points
    is_closed = bool(np.allclose(points[0], points[-1]))
    before = points[-2] if is_closed else 2 * points[0] - points[1]
    behind = points[1] if is_closed else 2 * points[-1] - points[-2]
    padded = np.concatenate([before[None], points, behind[None]])
    t = (np.arange(steps, dtype=np.float32) / steps)[None, :, None]
    a, b, c, d = (padded[start : start + len(points) - 1, None] for start in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([curve.reshape(-1, 2), points[-1:]]).astype(np.float32)
