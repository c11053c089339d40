"""Several encoded images on one, in reading order: how a document or a video stands on the sample page."""

import io
import math
from collections.abc import Sequence

from PIL import Image, UnidentifiedImageError

_SIDE = 128  # pixels
_EMPTY = (226, 224, 219)


def contact_sheet(images: Sequence[bytes]) -> bytes:
    """One image as it is, none as no bytes, several on a grid; a place stays empty where an image cannot be read."""
    if len(images) < 2:
        return images[0] if images else b""
    columns = math.ceil(math.sqrt(len(images)))
    sheet = Image.new("RGB", (columns * _SIDE, math.ceil(len(images) / columns) * _SIDE), _EMPTY)
    for place, image in enumerate(images):
        try:
            with Image.open(io.BytesIO(image)) as opened:
                picture = opened.convert("RGB").resize((_SIDE - 4, _SIDE - 4))
        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError):
            continue
        sheet.paste(picture, (place % columns * _SIDE + 2, place // columns * _SIDE + 2))
    held = io.BytesIO()
    sheet.save(held, format="PNG")
    return held.getvalue()
