"""A drawing in coloured pencil: lines where the picture has edges, and paper everywhere else."""

import numpy as np

from vlmtrain.data.shifts.base import Field, PixelShift

_FULL_LINE = 0.25  # the step of brightness from which on a line is drawn in full


class Sketch(PixelShift):
    """White paper with a line at every edge, `line` pixels of 128 wide, in the strongest colour beside it.

    Lines keep their colour, for colours are part of what the pictures are asked for; ImageNet-Sketch (Wang et al.
    2019, arXiv:1905.13549) is black and white.
    """

    def __init__(self, line: float = 2.0) -> None:
        if line <= 0:
            raise ValueError(f"line={line} must be a width above 0, in pixels of an image of 128")
        self.line = line

    def change(self, pixels: Field, generator: np.random.Generator) -> Field:
        reach = max(1, round(self.line * min(pixels.shape[:2]) / 256))
        down, across = np.gradient(pixels, axis=(0, 1))
        step = 2 * np.sqrt((down**2 + across**2).max(axis=2))
        ink = np.clip(_widest(step, reach) / np.float32(_FULL_LINE) - 0.3, 0, 1)[:, :, None]
        return 1 - ink * (1 - _strongest(pixels, reach + 1))


def _near(field: Field, reach: int, axis: int) -> list[Field]:
    """The field seen from every place at most `reach` pixels away along an axis."""
    padding = [(reach, reach) if each == axis else (0, 0) for each in range(field.ndim)]
    padded = np.pad(field, padding, mode="edge")
    length = field.shape[axis]
    views = [slice(start, start + length) for start in range(2 * reach + 1)]
    return [padded[view] if axis == 0 else padded[:, view] for view in views]


def _widest(field: Field, reach: int) -> Field:
    for axis in (0, 1):
        field = np.maximum.reduce(_near(field, reach, axis))
    return field


def _strongest(pixels: Field, reach: int) -> Field:
    """[h, w, 3]: of the pixels near by, the one with the most colour."""
    for axis in (0, 1):
        near = np.stack(_near(pixels, reach, axis))
        best = (near.max(axis=3) - near.min(axis=3)).argmax(axis=0)
        pixels = np.take_along_axis(near, best[None, :, :, None], axis=0)[0]
    return pixels
