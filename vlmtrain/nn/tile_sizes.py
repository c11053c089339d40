"""What size an image gets before an encoder sees it: squares, or whole patches that keep its proportions (T33)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

Grid = tuple[int, int]  # rows, columns
Size = tuple[int, int]  # height, width in pixels


def pix2struct_grid(height: int, width: int, patch_size: int, max_patches: int) -> Grid:
    """The scale at which the image has `max_patches` patches, rows and columns rounded down (Pix2Struct, section 2).

    An image so narrow that a side rounds to nothing keeps one row or column, and the other side is cut to the budget.
    """
    scale = math.sqrt(max_patches * (patch_size / height) * (patch_size / width))
    rows = max(1, min(int(scale * height / patch_size), max_patches))
    columns = max(1, min(int(scale * width / patch_size), max_patches))
    return rows, columns


def naflex_grid(height: int, width: int, patch_size: int, max_patches: int) -> Grid:
    """The largest scale at which the image, rounded up to whole patches, keeps to the budget (SigLIP 2, section 3.2).

    `patch_size` does not matter: any scale is allowed.
    """
    best, largest = (1, 1), Fraction(0)
    for count in range(1, max_patches + 1):
        for scale in (Fraction(count, height), Fraction(count, width)):  # where a row or a column is just filled
            rows, columns = math.ceil(height * scale), math.ceil(width * scale)
            if rows * columns <= max_patches and scale > largest:
                best, largest = (rows, columns), scale
    return best


class TileSizes(Protocol):
    """Height and width of an image -> of the tile it becomes.  Small, so that worker processes have copies."""

    @property
    def side(self) -> int:
        """Of the largest square among the tiles."""

    def __call__(self, height: int, width: int) -> Size: ...


@dataclass(frozen=True)
class Squares:
    """The same square for every image."""

    side: int

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"squares of {self.side} pixels: give at least 1")

    def __call__(self, height: int, width: int) -> Size:
        return self.side, self.side


@dataclass(frozen=True)
class WholePatches:
    """As many whole patches as `max_patches` allows at the proportions of the image; `grid` finds rows and columns."""

    patch_size: int
    max_patches: int
    grid: Callable[[int, int, int, int], Grid] = pix2struct_grid

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.max_patches < 1:
            raise ValueError(f"patch_size={self.patch_size} and max_patches={self.max_patches} must be at least 1")

    @property
    def side(self) -> int:
        return self.patch_size * math.isqrt(self.max_patches)

    def __call__(self, height: int, width: int) -> Size:
        rows, columns = self.grid(height, width, self.patch_size, self.max_patches)
        return rows * self.patch_size, columns * self.patch_size


@dataclass(frozen=True)
class ShorterSide:
    """The shorter side becomes `shorter` pixels unless the longer would exceed `longest`; both round down to patches.

    As ViLT resizes images (Kim et al. 2021, section 4.1): 384 and 640.
    """

    patch_size: int
    shorter: int
    longest: int

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.longest < self.shorter or self.shorter < self.patch_size:
            raise ValueError(f"shorter={self.shorter} must be at least a patch, and longest={self.longest} no less")

    @property
    def side(self) -> int:
        return self.shorter

    def __call__(self, height: int, width: int) -> Size:
        scale = min(self.shorter / min(height, width), self.longest / max(height, width))
        rows, columns = (
            max(1, int(min(side * scale + 0.5, self.longest)) // self.patch_size) for side in (height, width)
        )
        return rows * self.patch_size, columns * self.patch_size
