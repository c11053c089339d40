"""A shift that only who draws the picture can make: the same things before another ground."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from vlmtrain.data.record import Record
from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.records import JPEG_QUALITY
from vlmtrain.data.scenes.render import render, rgb_of
from vlmtrain.data.scenes.shapes import Field
from vlmtrain.data.scenes.things import Scene

KINDS = ("checks", "bars", "wash")


class NewBackgrounds:
    """Scenes before checks, bars or a plain wash, of middle brightness and in colours that grounds never have.

    The grounds of the world (`things.BACKGROUNDS`) are soft, nearly grey, and either pale or dark.
    """

    def __init__(self, contrast: float = 0.25, saturation: float = 0.45) -> None:
        if not 0 <= contrast <= 1 or not 0 <= saturation <= 1:
            raise ValueError(f"contrast={contrast} and saturation={saturation} must be from 0 to 1")
        self.contrast = contrast
        self.saturation = saturation

    def __call__(self, record: Record) -> Record:
        if "scene" not in record.extra:
            raise ValueError(f"record {record.key!r} carries no scene: only drawn scenes can have another background")
        scene = Scene.from_json(record.extra["scene"])
        with Image.open(io.BytesIO(record.image)) as image:
            size = image.width
        held = io.BytesIO()
        pixels = render(scene, size, self._ground(scene, size))
        Image.fromarray(pixels).save(held, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        return replace(record, images=[held.getvalue()])

    def _ground(self, scene: Scene, size: int) -> Field:
        """[size, size, 3]"""
        draws = Draws("new background", scene.seed)
        kind, value = draws.pick(KINDS), draws.uniform(0.42, 0.66)
        base = rgb_of(360 * draws.uniform(), self.saturation, value)
        axis = (np.arange(size, dtype=np.float32) + 0.5) / size
        period, offset, slant = draws.uniform(0.12, 0.2), draws.uniform(), draws.pick((-1.0, 0.0, 1.0))
        rows = np.floor(axis[:, None] / period + offset)
        columns = np.floor((axis[None, :] + (slant * axis[:, None] if kind == "bars" else 0)) / period + offset)
        tone = {"checks": (rows + columns) % 2, "bars": columns % 2, "wash": axis[:, None] + 0 * columns}[kind]
        ground: Field = base + np.float32(self.contrast) * (tone.astype(np.float32)[:, :, None] - np.float32(0.5))
        return ground
