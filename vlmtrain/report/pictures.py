"""Encoded images of any data set -> pictures that are safe and small enough to show."""

import io
import logging
from base64 import b64encode

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

logger = logging.getLogger(__name__)

_EMPTY = (226, 224, 219)


def open_picture(image: bytes, side: int) -> Image.Image:
    """The picture fitted into a square of `side` pixels, upright, in RGB; a crossed square where it cannot be read."""
    try:
        with Image.open(io.BytesIO(image)) as opened:
            opened.draft("RGB", (side, side))
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        logger.warning("A sample picture cannot be shown: %s", error)
        return _placeholder(side)
    fitted = ImageOps.contain(picture, (side, side), Image.Resampling.LANCZOS)
    if fitted.size == (side, side):
        return fitted
    framed = Image.new("RGB", (side, side), _EMPTY)
    framed.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return framed


def to_data_uri(image: bytes, side: int) -> str:
    """The picture as a JPEG inside a URI, so that a page needs no other file."""
    held = io.BytesIO()
    open_picture(image, side).save(held, format="JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{b64encode(held.getvalue()).decode('ascii')}"


def _placeholder(side: int) -> Image.Image:
    square = Image.new("RGB", (side, side), _EMPTY)
    draw = ImageDraw.Draw(square)
    draw.line((0, 0, side, side), fill=(200, 196, 188), width=2)
    draw.line((0, side, side, 0), fill=(200, 196, 188), width=2)
    return square
