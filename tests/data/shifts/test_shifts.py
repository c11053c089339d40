"""Shifts change how images look, alike each time, and nothing else of a record."""

import io

import numpy as np
import pytest
from PIL import Image

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.shifts.base import encode_png
from vlmtrain.data.shifts.blur import Blur
from vlmtrain.data.shifts.noise import Noise
from vlmtrain.data.shifts.sketch import Sketch

SIDE = 48


def red_square_on_grey() -> np.ndarray:
    pixels = np.full((SIDE, SIDE, 3), 0.8, dtype=np.float32)
    pixels[12:36, 12:36] = (0.9, 0.1, 0.1)
    return pixels


def record_of(pixels: np.ndarray, key: str = "k") -> Record:
    return Record(key, [encode_png(pixels)], ["a red square"], {"class": "red square"})


def pixels_of(record: Record) -> np.ndarray:
    with Image.open(io.BytesIO(record.image)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


@pytest.mark.parametrize("shift", [Noise(), Blur(), Sketch()], ids=lambda shift: type(shift).__name__)
def test_a_shift_is_the_same_each_time_and_touches_images_only(shift) -> None:
    record = record_of(red_square_on_grey())
    once, again = shift(record), shift(record)
    assert once.images == again.images and once.images != record.images
    assert (once.key, once.captions, once.extra) == (record.key, record.captions, record.extra)
    assert pixels_of(once).shape == (SIDE, SIDE, 3)
    with pytest.raises(BrokenSample, match="'broken'"):
        shift(Record("broken", [b"no image"], ["x"]))


def test_noise_is_another_one_for_every_record_and_as_strong_as_asked_for() -> None:
    flat = np.full((SIDE, SIDE, 3), 0.5, dtype=np.float32)
    one, other = (pixels_of(Noise(0.1)(record_of(flat, key))) for key in ("one", "other"))
    assert not np.array_equal(one, other)
    assert one.std() == pytest.approx(0.1, rel=0.05) and one.mean() == pytest.approx(0.5, abs=0.01)


def test_blur_keeps_the_brightness_and_softens_edges_evenly_along_both_axes() -> None:
    before, after = red_square_on_grey(), pixels_of(Blur(0.03)(record_of(red_square_on_grey())))
    assert after.mean() == pytest.approx(before.mean(), abs=0.01)
    assert np.abs(np.diff(after, axis=0)).max() < 0.5 * np.abs(np.diff(before, axis=0)).max()
    np.testing.assert_allclose(after, after.transpose(1, 0, 2), atol=2 / 255)


def test_a_sketch_has_lines_of_the_thing_s_colour_at_its_edge_and_paper_elsewhere() -> None:
    drawn = pixels_of(Sketch()(record_of(red_square_on_grey())))
    for paper in (drawn[2, 2], drawn[24, 24]):
        np.testing.assert_allclose(paper, 1.0, atol=2 / 255)
    np.testing.assert_allclose(drawn[24, 12], (0.9, 0.1, 0.1), atol=0.02)


def test_what_is_no_shift_is_refused() -> None:
    for make in (lambda: Noise(0), lambda: Blur(0.5), lambda: Sketch(0)):
        with pytest.raises(ValueError, match="above 0"):
            make()
