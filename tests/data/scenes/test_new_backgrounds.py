"""The same things before another ground."""

import io

import numpy as np
import pytest
from PIL import Image

from vlmtrain.data.record import Record
from vlmtrain.data.scenes.new_backgrounds import NewBackgrounds
from vlmtrain.data.scenes.render import render
from vlmtrain.data.scenes.single import MakeSingle
from vlmtrain.data.scenes.things import Scene


def pixels_of(record: Record) -> np.ndarray:
    with Image.open(io.BytesIO(record.image)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_thing_stays_and_the_ground_is_another() -> None:
    for index in range(4):
        record = MakeSingle((("red", "square"), ("blue", "circle")), "test")(0, index)
        changed = NewBackgrounds()(record)
        before, after = pixels_of(record), pixels_of(changed)
        thing = Scene.from_json(record.extra["scene"]).things[0]
        middle = int(thing.y * 128), int(thing.x * 128)
        assert np.abs(before[middle] - after[middle]).max() < 25
        axis = (np.arange(128) + 0.5) / 128
        far = np.hypot(axis[None, :] - thing.x, axis[:, None] - thing.y) > 0.3
        most_colourful = 255 * 0.18 * 0.94  # of the world's grounds, see world._draw_background
        assert (after[far].max(1) - after[far].min(1)).mean() > most_colourful > np.ptp(before[far], axis=1).mean()
        assert np.abs(before[far] - after[far]).max(1).mean() > 40
        assert changed.images == NewBackgrounds()(record).images
        assert (changed.key, changed.captions, changed.extra) == (record.key, record.captions, record.extra)


def test_a_ground_that_is_given_is_not_written_to() -> None:
    scene = Scene.from_json(MakeSingle((("red", "square"),), "test")(0, 0).extra["scene"])
    ground = np.full((64, 64, 3), 0.5, dtype=np.float32)
    render(scene, 64, ground)
    assert (ground == 0.5).all()


def test_what_has_no_scene_cannot_have_another_background() -> None:
    with pytest.raises(ValueError, match="carries no scene"):
        NewBackgrounds()(Record("k", [b""], ["x"]))
    with pytest.raises(ValueError, match="from 0 to 1"):
        NewBackgrounds(contrast=2.0)
