"""No encoder at all: raw patches, each through one linear layer (ViLT, Kim et al. 2021; Fuyu, Bavishi et al. 2023)."""

from torch import Tensor, nn

from vlmtrain.encoders.flexible import CutPatches, FlexibleEncoder
from vlmtrain.nn.initial_std import initial_std
from vlmtrain.nn.tile_sizes import Squares, TileSizes

HALF = (0.5, 0.5, 0.5)


class PatchEmbedding(FlexibleEncoder):
    """A projection of the pixels of a patch, plus the vector of its row and that of its column.

    Takes any tile of up to `image_size` pixels on each side, in multiples of `patch_size`, and several sizes in one
    batch.  Positions are tables of rows and columns, so that a small tile uses part of what a large one has learned.
    """

    def __init__(self, image_size: int, patch_size: int, width: int) -> None:
        super().__init__(HALF, HALF)
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} must be a multiple of patch_size {patch_size}.")
        side = image_size // patch_size
        self.image_size, self.patch_size, self.width = image_size, patch_size, width
        self.patches_per_tile = side**2
        self.project = nn.Linear(3 * patch_size**2, width)
        self.rows = nn.Embedding(side, width)
        self.columns = nn.Embedding(side, width)
        nn.init.trunc_normal_(self.project.weight, std=initial_std(self.project.in_features))
        nn.init.zeros_(self.project.bias)
        for table in (self.rows, self.columns):
            nn.init.trunc_normal_(table.weight, std=0.02)

    def tile_sizes(self) -> TileSizes:
        """Squares: each side has positions for `image_size` pixels and no more."""
        return Squares(self.image_size)

    def encode_patches(self, cut: CutPatches) -> Tensor:
        return self.project(cut.values) + self.rows(cut.rows) + self.columns(cut.columns)

    def check(self, cut: CutPatches) -> None:
        side = self.rows.num_embeddings
        for rows, columns in cut.grids:
            if max(rows, columns) > side:
                raise ValueError(
                    f"a tile of {rows}x{columns} patches exceeds the {side} rows and columns of this PatchEmbedding; "
                    f"resize to at most {self.image_size} pixels, or raise image_size."
                )
