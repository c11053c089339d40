"""How a vision transformer knows where a patch stands: one module per answer, chosen by one config value (T03-T06).

Every class takes the same four arguments and offers the same two methods, so that nothing else of the encoder changes.
Cost on a grid of R rows and C columns: learned 1-D (R*C + 1)*W numbers and one addition; learned 2-D (R + C + 1)*W and
two additions; relative one number per head, layer and offset, and one addition of [heads, T, T] in every layer, which
also takes the fastest attention kernels away.  1-D is the cheapest in time and is the default.
"""

from abc import ABC, abstractmethod
from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

Grid = tuple[int, int]  # rows, columns of patches

INITIAL_SCALE = 0.02  # standard deviation of new tables, as in ViT and BERT


class Positions(nn.Module, ABC):
    """Where patches stand, for an encoder of `depth` layers trained on `grid`; token 0 is the class token."""

    def __init__(self, grid: Grid, width: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.grid = grid
        self.width = width
        self.depth = depth
        self.num_heads = num_heads

    @abstractmethod
    def add(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Tokens [N, 1 + P, W] -> the same with what is known of their places added."""

    @abstractmethod
    def resized(self, grid: Grid) -> "Positions":
        """Positions of the same kind for another grid that mean the same places; `self` where the grid is the same."""

    @abstractmethod
    def attention_bias(self, layer: int, grid: Grid) -> Tensor | None:
        """What layer `layer` adds to its attention scores, [heads, 1 + P, 1 + P], or None for nothing."""


class Absolute(Positions):
    """A vector per position, added once to the tokens."""

    @abstractmethod
    def table(self) -> Tensor:
        """[1 + P, W]"""

    def resized(self, grid: Grid) -> Positions:
        if grid == self.grid:
            return self
        other = type(self)(grid, self.width, self.depth, self.num_heads)
        with torch.no_grad():
            self.interpolate_into(other)
        return other

    @abstractmethod
    def interpolate_into(self, other: Self) -> None:
        """Fill the tables of `other`, which knows another grid, with the values between ours."""

    def add(self, tokens: Tensor, grid: Grid) -> Tensor:
        if grid != self.grid:
            raise ValueError(
                f"{type(self).__name__} knows the positions of a {self.grid[0]}x{self.grid[1]} grid of patches, "
                f"this image has {grid[0]}x{grid[1]}.  Resize images to image_size, or use RelativeBias2D."
            )
        return tokens + self.table()

    def attention_bias(self, layer: int, grid: Grid) -> Tensor | None:
        return None


class Learned1D(Absolute):
    """One learned vector per position in reading order (ViT, section 3.1)."""

    def __init__(self, grid: Grid, width: int, depth: int, num_heads: int) -> None:
        super().__init__(grid, width, depth, num_heads)
        self.vectors = nn.Parameter(INITIAL_SCALE * torch.randn(grid[0] * grid[1] + 1, width))

    def table(self) -> Tensor:
        return self.vectors

    def interpolate_into(self, other: Self) -> None:
        rows, columns = self.grid
        picture = rearrange(self.vectors[1:], "(rows columns) w -> 1 w rows columns", rows=rows, columns=columns)
        larger = F.interpolate(picture, other.grid, mode="bicubic", align_corners=False)  # as transformers has it
        other.vectors[:1] = self.vectors[:1]
        other.vectors[1:] = rearrange(larger, "1 w rows columns -> (rows columns) w")


class Learned2D(Absolute):
    """The vector of a patch is that of its row plus that of its column (ViT, appendix D.4)."""

    def __init__(self, grid: Grid, width: int, depth: int, num_heads: int) -> None:
        super().__init__(grid, width, depth, num_heads)
        self.class_vector = nn.Parameter(INITIAL_SCALE * torch.randn(1, width))
        self.rows = nn.Parameter(INITIAL_SCALE * torch.randn(grid[0], width))
        self.columns = nn.Parameter(INITIAL_SCALE * torch.randn(grid[1], width))

    def table(self) -> Tensor:
        patches = rearrange(self.rows[:, None] + self.columns[None, :], "rows columns w -> (rows columns) w")
        return torch.cat([self.class_vector, patches])

    def interpolate_into(self, other: Self) -> None:
        other.class_vector.copy_(self.class_vector)
        for own, its in ((self.rows, other.rows), (self.columns, other.columns)):
            line = F.interpolate(own.mT.unsqueeze(0), len(its), mode="linear", align_corners=False)
            its.copy_(line.squeeze(0).mT)


class RelativeBias(Positions):
    """A learned number per layer, head and offset of key from query, added to the attention score.

    The class token has no place on the image: three numbers of its own stand for class-to-patch, patch-to-class and
    class-to-class.  Another grid may be read as long as its offsets occurred in the grid of training.
    """

    def __init__(self, grid: Grid, width: int, depth: int, num_heads: int) -> None:
        super().__init__(grid, width, depth, num_heads)
        offsets = [2 * extent - 1 for extent in self.extents(grid)]
        self.bias = nn.Parameter(INITIAL_SCALE * torch.randn(depth, num_heads, *offsets))
        self.class_bias = nn.Parameter(INITIAL_SCALE * torch.randn(depth, num_heads, 3))

    @abstractmethod
    def extents(self, grid: Grid) -> tuple[int, ...]:
        """How many different places there are along each axis."""

    @abstractmethod
    def places(self, grid: Grid) -> Tensor:
        """Place of each patch along each axis: [P, axes]"""

    def add(self, tokens: Tensor, grid: Grid) -> Tensor:
        return tokens

    def resized(self, grid: Grid) -> Positions:
        """A smaller grid needs nothing; a larger one has offsets of which nothing was learned."""
        if any(extent > known for extent, known in zip(self.extents(grid), self.extents(self.grid), strict=True)):
            raise ValueError(
                f"{type(self).__name__} knows offsets within a {self.grid[0]}x{self.grid[1]} grid of patches and "
                f"cannot grow to {grid[0]}x{grid[1]}; use a smaller image_size, or Learned1D or Learned2D."
            )
        return self

    def attention_bias(self, layer: int, grid: Grid) -> Tensor | None:
        extents, known = self.extents(grid), self.extents(self.grid)
        if any(extent > limit for extent, limit in zip(extents, known, strict=True)):
            raise ValueError(
                f"{type(self).__name__} knows offsets within a {self.grid[0]}x{self.grid[1]} grid of patches; "
                f"a {grid[0]}x{grid[1]} grid has larger ones.  Use smaller images."
            )
        places = self.places(grid).to(self.bias.device)
        offsets = places[None, :] - places[:, None]  # [query, key, axes]
        index = torch.zeros_like(offsets[..., 0])
        for axis, limit in enumerate(known):
            index = index * (2 * limit - 1) + offsets[..., axis] + limit - 1
        between_patches = self.bias[layer].flatten(1)[:, index]  # [heads, P, P]
        num_heads, num_patches, _ = between_patches.shape
        class_to_patch, patch_to_class, class_to_class = self.class_bias[layer][:, None, :, None].unbind(2)
        first_row = torch.cat([class_to_class, class_to_patch.expand(-1, 1, num_patches)], dim=2)
        first_column = patch_to_class.expand(num_heads, num_patches, 1)
        return torch.cat([first_row, torch.cat([first_column, between_patches], dim=2)], dim=1)


class RelativeBias1D(RelativeBias):
    """The offset is counted in reading order."""

    def extents(self, grid: Grid) -> tuple[int, ...]:
        return (grid[0] * grid[1],)

    def places(self, grid: Grid) -> Tensor:
        return torch.arange(grid[0] * grid[1]).unsqueeze(-1)


class RelativeBias2D(RelativeBias):
    """The offset is that of rows and that of columns."""

    def extents(self, grid: Grid) -> tuple[int, ...]:
        return grid

    def places(self, grid: Grid) -> Tensor:
        return torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1]))
