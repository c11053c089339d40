"""Encoded image -> uint8 tensor of the size that the encoder asks for; the resize is torch's own, on bytes."""

import importlib.util
import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vlmtrain.data.decode import Decoder, Pixels, decode_image
from vlmtrain.data.keys import fraction_of
from vlmtrain.nn.tile_sizes import Size, TileSizes

Box = tuple[int, int, int, int]  # left, top, width, height in pixels

_PADDING = (122, 116, 104)  # the mean colour of photographs, so that padding is near zero after normalisation
_CROP_TRIES = 10


class ImageTransform:
    """Decodes, cuts out and resizes.

    `tile_sizes` is the encoder's; `resize` says how an image of other proportions gets there: "squash" changes them,
    "crop" keeps the middle, "pad" adds bars.  `crop_scale=(0.5, 1.0)` trains on random cut-outs of 50 to 100 % of the
    area, proportions 3:4 to 4:3 (Szegedy et al. 2015, "Going deeper with convolutions", section 6).  `flip` mirrors
    every second image: never with captions that say left and right.
    """

    def __init__(
        self,
        tile_sizes: TileSizes,
        crop_scale: tuple[float, float] | None = None,
        flip: bool = False,
        resize: Literal["squash", "crop", "pad"] = "squash",
        max_pixels: int = 64_000_000,
        decoder: Decoder = "pillow",
    ) -> None:
        if resize not in ("squash", "crop", "pad"):
            raise ValueError(f"resize={resize!r} is unknown: use squash, crop or pad")
        if decoder == "simplejpeg" and importlib.util.find_spec("simplejpeg") is None:
            raise ValueError("decoder=simplejpeg needs a package that is not installed: pip install 'vlmtrain[fast]'")
        if crop_scale is not None and not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise ValueError(f"crop_scale={crop_scale} must be two shares of the area, 0 < low <= high <= 1")
        if max_pixels < 1:
            raise ValueError(f"max_pixels={max_pixels} must be at least 1")
        self.tile_sizes = tile_sizes
        self.crop_scale = tuple(crop_scale) if crop_scale is not None else None
        self.flip = flip
        self.resize = resize
        self.max_pixels = max_pixels
        self.decoder: Decoder = decoder

    def __call__(self, data: bytes, key: int | None = None) -> Tensor:
        """[3, h, w] uint8, as `tile_sizes` says.  `key` draws the augmentation; None, for evaluation, leaves it out."""
        image = decode_image(data, self.max_pixels, self.tile_sizes.side, self.decoder)
        height, width, _ = image.shape
        box = (0, 0, width, height)
        if key is not None and self.crop_scale is not None:
            box = _random_box(width, height, self.crop_scale, key)
        elif self.resize == "crop":
            box = _middle_box(width, height, self.tile_sizes(height, width))
        size = self.tile_sizes(box[3], box[2])
        pads = self.resize == "pad" and (key is None or self.crop_scale is None)
        pixels = _fit_and_pad(cut(image, box), size) if pads else resized(cut(image, box), *size)
        if self.flip and key is not None and fraction_of("flip", key) < 0.5:
            pixels = pixels.flip(-1)
        return pixels


def cut(image: Pixels, box: Box) -> Tensor:
    """[3, h, w] uint8 of the box, in memory still [h, w, 3]."""
    left, top, width, height = box
    region = np.ascontiguousarray(image[top : top + height, left : left + width])
    return torch.from_numpy(region).permute(2, 0, 1)


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """[3, h, w] -> [3, height, width], both uint8."""
    if tuple(pixels.shape[1:]) == (height, width):
        return pixels.contiguous()
    changed = functional.interpolate(pixels[None], (height, width), mode="bicubic", antialias=True)
    return changed[0].contiguous()


def _fit_and_pad(pixels: Tensor, size: Size) -> Tensor:
    height, width = pixels.shape[1:]
    scale = min(size[0] / height, size[1] / width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    canvas = torch.tensor(_PADDING, dtype=torch.uint8).view(3, 1, 1).repeat(1, *size)
    top, left = (size[0] - inner_height) // 2, (size[1] - inner_width) // 2
    canvas[:, top : top + inner_height, left : left + inner_width] = resized(pixels, inner_height, inner_width)
    return canvas


def _middle_box(width: int, height: int, size: Size) -> Box:
    """The largest box in the middle with the proportions of `size`."""
    scale = min(height / size[0], width / size[1])
    box_height, box_width = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return (width - box_width) // 2, (height - box_height) // 2, box_width, box_height


def _random_box(width: int, height: int, scale: tuple[float, ...], key: int) -> Box:
    """A box of a random share of the area; the middle square if the image is so narrow that none of ten fits."""
    for attempt in range(_CROP_TRIES):
        share, shape, across, down = (fraction_of("crop", key, attempt, what) for what in range(4))
        area = width * height * (scale[0] + (scale[1] - scale[0]) * share)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * shape)
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            left, top = int(across * (width - box_width + 1)), int(down * (height - box_height + 1))
            return left, top, box_width, box_height
    return _middle_box(width, height, (1, 1))
