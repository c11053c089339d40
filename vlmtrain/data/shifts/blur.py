"""A lens out of focus."""

import numpy as np

from vlmtrain.data.shifts.base import Field, PixelShift


class Blur(PixelShift):
    """A Gaussian whose deviation is `width` of the image's smaller side; edges are continued."""

    def __init__(self, width: float = 0.025) -> None:
        if not 0 < width < 0.5:
            raise ValueError(f"width={width} must be a share of the image above 0 and below 0.5")
        self.width = width

    def change(self, pixels: Field, generator: np.random.Generator) -> Field:
        deviation = self.width * min(pixels.shape[:2])
        for axis in (0, 1):
            pixels = _smooth(pixels, deviation, axis)
        return pixels


def _smooth(pixels: Field, deviation: float, axis: int) -> Field:
    reach = max(1, round(3 * deviation))
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / deviation) ** 2).astype(np.float32)
    weights /= weights.sum()
    padding = [(reach, reach) if each == axis else (0, 0) for each in range(pixels.ndim)]
    padded = np.pad(pixels, padding, mode="edge")
    length = pixels.shape[axis]
    views = [slice(start, start + length) for start in range(len(weights))]
    taken = [padded[view] if axis == 0 else padded[:, view] for view in views]
    smooth: Field = sum((weight * part for weight, part in zip(weights, taken, strict=True)), np.zeros_like(pixels))
    return smooth
