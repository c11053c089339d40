"""Encoded image -> RGB pixels, for files that nobody vouches for.

The rule for what is not plain 8-bit RGB: orientation is applied as EXIF says; of an animation the first frame is taken;
transparency is laid over white; grey is repeated; 16-bit grey keeps its upper byte; CMYK and the other colour spaces
are converted by Pillow without a profile.
"""

import io
import struct
import warnings
import zlib
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
Decoder = Literal["pillow", "simplejpeg"]
Pixels = NDArray[np.uint8]  # [h, w, 3]

_ORIENTATION = 0x0112
_LARGE = 16_000_000  # pixels from which on memory matters more than the last bit of the picture
_STRIP = 2_000_000  # pixels
_DECODER_FAILURES = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


class UndecodableImage(ValueError):
    """These bytes are no picture that we read; the message says why."""


def decode_image(data: bytes, max_pixels: int, wanted_side: int, decoder: Decoder = "pillow") -> Pixels:
    """[h, w, 3]; an image above 16 megapixels may come smaller, with sides of still twice `wanted_side` at least.

    `decoder="simplejpeg"` decodes ordinary JPEG faster, and differs from Pillow by rounding.
    """
    if not data:
        raise UndecodableImage("the image is empty (0 bytes)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit is lower than Pillow's, and odd metadata does no harm
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image, max_pixels)
                is_large = image.width * image.height >= _LARGE
                if decoder == "simplejpeg" and image.format == "JPEG" and image.mode != "CMYK" and not is_large:
                    return _upright(_decode_jpeg(data), _orientation(image))
                image.load()
                orientation = _orientation(image)
                pixels = _shrink_by_strips(image, wanted_side) if is_large else np.array(_to_rgb(image))
                return _upright(pixels, orientation)
    except UndecodableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UndecodableImage(f"image bomb? {error}") from None
    except Image.UnidentifiedImageError:
        raise UndecodableImage(f"not a {', '.join(FORMATS)} image; it begins with {data[:12]!r}") from None
    except _DECODER_FAILURES as error:
        raise UndecodableImage(f"the image does not decode: {type(error).__name__}: {str(error)[:120]}") from None


def _decode_jpeg(data: bytes) -> Pixels:
    from simplejpeg import decode_jpeg  # an extra

    pixels: Pixels = decode_jpeg(data, colorspace="RGB")
    return pixels


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise UndecodableImage(
            f"image bomb? {width} x {height} pixels are more than the {max_pixels} allowed (max_pixels)"
        )
    if width == 0 or height == 0:
        raise UndecodableImage(f"the image has {width} x {height} pixels")


def _orientation(image: Image.Image) -> int:
    """1 to 8; damaged metadata counts as none."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _DECODER_FAILURES:
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turned and mirrored as EXIF 2.3, tag 274, says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _shrink_by_strips(image: Image.Image, wanted_side: int) -> Pixels:
    """Means of whole squares of pixels, converted a few rows at a time, so that one large image fills no memory."""
    factor = max(1, min(image.size) // (2 * wanted_side))
    rows = factor * max(1, _STRIP // (image.width * factor))
    small = np.empty((-(-image.height // factor), -(-image.width // factor), 3), dtype=np.uint8)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        small[top // factor : (top + rows) // factor] = np.asarray(_to_rgb(strip).reduce(factor))
    return small


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        upper_byte = np.clip(np.asarray(image), 0, 65535) >> 8
        return Image.fromarray(upper_byte.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UndecodableImage("the image holds floating point numbers of unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
