"""Encoded image -> several tiles in reading order and a thumbnail: more detail than the encoder's size has."""

import importlib.util
import math

import torch
from torch import Tensor

from vlmtrain.data.decode import Decoder, decode_image
from vlmtrain.data.transforms import cut, resized
from vlmtrain.nn.tile_sizes import TileSizes

_UPSCALING = 2.0  # at most, in area: a small image is not cut into tiles that hold nothing


class Tiling:
    """Cuts an image into the grid of tiles that keeps its proportions best, and puts the whole image behind them.

    Of all grids of up to `max_tiles` - 1 tiles the one whose width to height is nearest to the image's, among equal
    ones the largest that enlarges the image's area no more than twofold; the image is resized to fill it.  One tile
    needs no thumbnail beside it.  As LLaVA-NeXT's "anyres" and InternVL 1.5 do (Chen et al. 2024, arXiv:2404.16821,
    section 3.2), without random cut-outs or flips.
    """

    def __init__(
        self, tile_sizes: TileSizes, max_tiles: int = 5, max_pixels: int = 64_000_000, decoder: Decoder = "pillow"
    ) -> None:
        if decoder == "simplejpeg" and importlib.util.find_spec("simplejpeg") is None:
            raise ValueError("decoder=simplejpeg needs a package that is not installed: pip install 'vlmtrain[fast]'")
        if max_pixels < 1 or max_tiles < 1:
            raise ValueError(f"max_pixels={max_pixels} and max_tiles={max_tiles} must be at least 1")
        if tile_sizes(1, 2) != (tile_sizes.side, tile_sizes.side):
            raise ValueError(f"tiles are squares, and this encoder takes {tile_sizes}: leave Tiling out")
        self.side = tile_sizes.side
        self.max_tiles = max_tiles
        self.max_pixels = max_pixels
        self.decoder: Decoder = decoder

    def __call__(self, data: bytes, key: int | None = None) -> Tensor:
        """[tiles, 3, side, side] uint8, the thumbnail last; nothing is left to chance."""
        side = self.side
        image = decode_image(data, self.max_pixels, side * max(1, self.max_tiles - 1), self.decoder)
        height, width, _ = image.shape
        pixels = cut(image, (0, 0, width, height))
        thumbnail = resized(pixels, side, side)[None]
        rows, columns = choose_grid(width, height, side, self.max_tiles - 1)
        if rows * columns == 1:
            return thumbnail
        whole = resized(pixels, rows * side, columns * side)
        tiles = [
            whole[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
            for row in range(rows)
            for column in range(columns)
        ]
        return torch.cat([torch.stack(tiles), thumbnail])


def choose_grid(width: int, height: int, side: int, max_tiles: int) -> tuple[int, int]:
    """(rows, columns) of the tiles of `side` pixels for an image of this size; 1 x 1 where no two tiles are allowed."""
    grids = [
        (rows, columns)
        for rows in range(1, max_tiles + 1)
        for columns in range(1, max_tiles // rows + 1)
        if rows * columns * side * side <= _UPSCALING * width * height
    ]

    def fit(grid: tuple[int, int]) -> tuple[float, int]:
        rows, columns = grid
        distance = abs(math.log((columns * height) / (rows * width)))
        return round(distance, 9), -rows * columns

    return min(grids, key=fit, default=(1, 1))
