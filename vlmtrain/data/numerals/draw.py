"""Draws a numeral as nobody writes it twice: another way, slant, width, pen, colour and resolution each time."""

import io
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vlmtrain.data.numerals.strokes import WAYS, Points, smooth
from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.render import rgb_of
from vlmtrain.data.scenes.shapes import Field

INKS = {
    "white": (0.0, 0.0, 0.97), "black": (0.0, 0.0, 0.06), "red": (358.0, 0.86, 0.88),
    "green": (132.0, 0.72, 0.7), "blue": (216.0, 0.8, 0.9), "purple": (273.0, 0.68, 0.72), "pink": (326.0, 0.58, 0.98),
}  # fmt: skip
"""Hue in degrees, saturation and brightness of every colour that numerals are written in."""

SIDES = (8, 8, 12, 16, 24, 32)
"""Pixels a side: some are as coarse as a small scan."""

_CANVAS = 32
_THIN, _THICK = (0.055, 0.085), (0.1, 0.19)


@dataclass(frozen=True, slots=True)
class Numeral:
    """What a caption can say of one, and what keys the rest."""

    number: int
    ink: str
    pen: str  # "thin" or "thick"
    key: str


def draw_numeral(numeral: Numeral) -> bytes:
    """A PNG; the same numeral gives the same bytes."""
    draws = Draws("numeral", numeral.key)
    width = draws.uniform(*(_THIN if numeral.pen == "thin" else _THICK))
    cover = np.zeros((_CANVAS, _CANVAS), dtype=np.float32)
    for stroke in _written(draws, numeral.number):
        cover = np.maximum(cover, np.clip(0.5 + (width / 2 - _distance(stroke)) * _CANVAS, 0, 1))
    ink = rgb_of(*INKS[numeral.ink]) * draws.uniform(0.9, 1.0)
    ground = rgb_of(360 * draws.uniform(), draws.uniform(0.0, 0.15), _brightness_of_ground(draws, numeral.ink))
    pixels = ground + cover[:, :, None] * (ink - ground)
    image = Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8))
    side = draws.pick(SIDES)
    held = io.BytesIO()
    image.resize((side, side), Image.Resampling.BOX).save(held, format="PNG")
    return held.getvalue()


def _brightness_of_ground(draws: Draws, ink: str) -> float:
    """Far from the ink's; coloured inks stand out from both."""
    is_dark = ink == "white" or (ink != "black" and draws.chance(0.5))
    return draws.uniform(0.0, 0.15) if is_dark else draws.uniform(0.85, 1.0)


def _written(draws: Draws, number: int) -> list[Points]:
    """The strokes of one way to write it, each point a little off, then slanted, turned, sized and placed."""
    way = draws.pick(WAYS[number])
    height, proportion = draws.uniform(0.72, 0.96), draws.uniform(0.55, 0.95)
    slant, angle = draws.uniform(-0.1, 0.3), draws.uniform(-0.15, 0.15)
    loose = draws.uniform(0.0, 0.05)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shape = turn @ np.array([[proportion, -slant], [0.0, 1.0]]) * height
    place = np.array([draws.uniform(0.46, 0.54), draws.uniform(0.48, 0.52)])
    moved: dict[tuple[float, float], Points] = {}
    for point in (point for stroke in way for point in stroke):  # where strokes meet they still do
        offset = [draws.uniform(-loose, loose), draws.uniform(-loose, loose)]
        moved.setdefault(point, (shape @ (np.array(point) + offset - 0.5) + place).astype(np.float32))
    return [smooth(np.stack([moved[point] for point in stroke])) for stroke in way]


def _distance(stroke: Points) -> Field:
    """[_CANVAS, _CANVAS]: how far the middle of each pixel is from the stroke, in widths of the image."""
    axis = (np.arange(_CANVAS, dtype=np.float32) + 0.5) / _CANVAS
    pixels = np.stack(np.meshgrid(axis, axis), axis=-1)[:, :, None]  # [h, w, 1, 2]
    start, along = stroke[:-1], np.diff(stroke, axis=0)
    length = np.maximum((along**2).sum(-1), 1e-9)
    part = (((pixels - start) * along).sum(-1) / length).clip(0, 1)
    gap = pixels - start - part[..., None] * along
    nearest: Field = np.sqrt((gap**2).sum(-1)).min(-1)
    return nearest
