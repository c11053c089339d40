"""Draws a scene as an image: pale or dark grounds, soft shadows, lit and patterned things, smooth edges."""

import colorsys
import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vlmtrain.data.scenes.draws import key_of
from vlmtrain.data.scenes.shapes import Field, distance
from vlmtrain.data.scenes.things import Background, Scene, Thing

_HUES = {"red": 358.0, "orange": 27.0, "yellow": 51.0, "green": 132.0, "blue": 216.0, "purple": 273.0, "pink": 326.0}
_SATURATION = {"red": 0.86, "orange": 0.92, "yellow": 0.84, "green": 0.72, "blue": 0.80, "purple": 0.68, "pink": 0.58}
_VALUE = {"red": 0.88, "orange": 0.97, "yellow": 0.97, "green": 0.70, "blue": 0.90, "purple": 0.72, "pink": 0.98}
_HUE_JITTER = 5.0
_ALWAYS_DARK_PATTERN = frozenset({"yellow"})
_STRIPE_PERIOD = 0.072
_DOT_PERIOD = 0.082
_DOT_RADIUS = 0.0265
_NOISE = 0.011
_SMALLEST = 16


def render(scene: Scene, size: int = 128, ground: Field | None = None) -> NDArray[np.uint8]:
    """The scene as size x size x 3 bytes, the same each time; before `ground` [size, size, 3] in place of its own."""
    if size < _SMALLEST:
        raise ValueError(f"an image {size} pixels wide is too small to show a scene: ask for {_SMALLEST} or more")
    generator = np.random.Generator(np.random.Philox(key=key_of("grain", scene.seed)))
    image = _ground(scene.background, size, generator) if ground is None else ground.copy()
    for thing in scene.things:
        _cast_shadow(image, thing, size)
    for thing in scene.things:
        _draw(image, thing, size)
    image += np.float32(_NOISE) * generator.standard_normal(image.shape, dtype=np.float32)
    return (np.clip(image, 0.0, 1.0) * np.float32(255.0) + np.float32(0.5)).astype(np.uint8)


def rgb_of(hue_degrees: float, saturation: float, value: float) -> Field:
    """[3] red, green and blue from 0 to 1."""
    rgb = colorsys.hsv_to_rgb((hue_degrees % 360.0) / 360.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return np.array(rgb, dtype=np.float32)


@lru_cache(maxsize=32)
def _stretch(size: int, knots: int) -> Field:
    """The matrix that turns values at a few knots into a smooth curve over the pixels."""
    place = (np.arange(size) + 0.5) / size * (knots - 1)
    left = np.minimum(place.astype(int), knots - 2)
    part = place - left
    part = part * part * (3 - 2 * part)
    matrix = np.zeros((size, knots), dtype=np.float32)
    matrix[np.arange(size), left] = 1 - part
    matrix[np.arange(size), left + 1] = part
    return matrix


def _ground(background: Background, size: int, generator: np.random.Generator) -> Field:
    """A ground whose lightness varies softly between two near tones."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    slope = axis[None, :] * np.float32(math.cos(background.angle)) + axis[:, None] * np.float32(
        math.sin(background.angle)
    )
    tone = slope
    if background.kind == "clouds":
        knots = generator.standard_normal((6, 6), dtype=np.float32)
        matrix = _stretch(size, 6)
        tone = 0.5 * slope + np.float32(0.26) * (matrix @ knots @ matrix.T)
    elif background.kind == "linen":
        threads = _stretch(size, 33) @ generator.standard_normal((33, 2), dtype=np.float32)
        tone = 0.7 * slope + np.float32(0.08) * (threads[:, 0][None, :] + threads[:, 1][:, None])
    elif background.kind == "glow":
        centre_x, centre_y = 0.25 * math.cos(background.angle), 0.25 * math.sin(background.angle)
        squares = (axis[None, :] - np.float32(centre_x)) ** 2 + (axis[:, None] - np.float32(centre_y)) ** 2
        tone = np.float32(0.5) - np.float32(1.6) * squares
    base = rgb_of(background.hue * 360.0, background.saturation, background.value)
    tint = rgb_of(background.hue * 360.0 + 40.0, background.saturation * 0.6, 1.0)
    return base + (np.float32(2.0 * background.contrast) * tone)[:, :, None] * tint


def _window(thing: Thing, size: int, reach: float) -> tuple[slice, slice, Field, Field]:
    """The pixels within reach of the thing, and their offsets from its centre in widths of the image."""
    left, right = _span(thing.x, reach, size)
    top, bottom = _span(thing.y, reach, size)
    x = (np.arange(left, right, dtype=np.float32) + np.float32(0.5)) / size - np.float32(thing.x)
    y = (np.arange(top, bottom, dtype=np.float32) + np.float32(0.5)) / size - np.float32(thing.y)
    return slice(top, bottom), slice(left, right), x[None, :], y[:, None]


def _span(centre: float, reach: float, size: int) -> tuple[int, int]:
    """From and to which pixel; nothing of what lies outside of the image."""
    return max(0, math.floor((centre - reach) * size)), max(0, min(size, math.ceil((centre + reach) * size)))


def outline_of(thing: Thing, x: Field, y: Field) -> Field:
    """Distances to the thing's edge, in widths of the image."""
    cosine, sine = math.cos(thing.angle) / thing.radius, math.sin(thing.angle) / thing.radius
    turned_x = x * np.float32(cosine) + y * np.float32(sine)
    turned_y = y * np.float32(cosine) - x * np.float32(sine)
    return distance(thing.shape, turned_x, turned_y) * np.float32(thing.radius)


def _cast_shadow(image: Field, thing: Thing, size: int) -> None:
    rows, columns, x, y = _window(thing, size, thing.radius + 0.06)
    outline = outline_of(thing, x - np.float32(0.012), y - np.float32(0.02))
    strength = np.clip(np.float32(0.5) - outline / np.float32(0.045), 0.0, 1.0)
    image[rows, columns] *= (np.float32(1.0) - np.float32(0.36) * strength * strength)[:, :, None]


def _draw(image: Field, thing: Thing, size: int) -> None:
    rows, columns, x, y = _window(thing, size, 1.05 * thing.radius + 2.0 / size)
    outline = outline_of(thing, x, y)
    cover = np.clip(np.float32(0.5) - outline * size, 0.0, 1.0)[:, :, None]
    hue = _HUES[thing.colour] + _HUE_JITTER * thing.hue_shift
    paint = rgb_of(hue, _SATURATION[thing.colour], _VALUE[thing.colour] * thing.brightness)
    colours = np.broadcast_to(paint, (*outline.shape, 3))
    pattern = _pattern(thing, x, y, size)
    if pattern is not None:
        colours = paint + pattern[:, :, None] * (_pattern_paint(thing, paint) - paint)
    lit = colours * _light(thing, x, y, outline)[:, :, None]
    patch = image[rows, columns]
    patch += cover * (lit - patch)


def _light(thing: Thing, x: Field, y: Field, outline: Field) -> Field:
    """Light from the upper left, with an edge that darkens like the rim of a cut-out."""
    slope = (x * np.float32(0.6) + y) * np.float32(-0.13 / thing.radius)
    rim = np.clip(np.float32(1.0) + outline / np.float32(0.022), 0.0, 1.0)
    return np.float32(1.03) + slope - np.float32(0.2) * rim * rim


def _pattern_paint(thing: Thing, paint: Field) -> Field:
    """The tone of stripes and dots: near white, or a dark shade where white would not show."""
    if thing.light_pattern and thing.colour not in _ALWAYS_DARK_PATTERN:
        return paint + np.float32(0.82) * (np.float32(1.0) - paint)
    return paint * np.float32(0.46)


def _pattern(thing: Thing, x: Field, y: Field, size: int) -> Field | None:
    """How much of each pixel the stripes or dots cover; wide enough to outlast a halving of the image."""
    if thing.texture == "plain":
        return None
    cosine, sine = np.float32(math.cos(thing.pattern_angle)), np.float32(math.sin(thing.pattern_angle))
    along = x * cosine + y * sine
    if thing.texture == "striped":
        phase = along / np.float32(_STRIPE_PERIOD)
        gap = np.abs(phase - np.round(phase)) * np.float32(_STRIPE_PERIOD)
        return np.clip(np.float32(0.5) + (np.float32(0.21 * _STRIPE_PERIOD) - gap) * size, 0.0, 1.0)
    across = y * cosine - x * sine
    row = np.round(across / np.float32(_DOT_PERIOD * 0.87))
    shifted = along / np.float32(_DOT_PERIOD) + np.float32(0.5) * (row % 2)
    from_x = (shifted - np.round(shifted)) * np.float32(_DOT_PERIOD)
    from_y = across - row * np.float32(_DOT_PERIOD * 0.87)
    gap = np.sqrt(from_x * from_x + from_y * from_y)
    return np.clip(np.float32(0.5) + (np.float32(_DOT_RADIUS) - gap) * size, 0.0, 1.0)
