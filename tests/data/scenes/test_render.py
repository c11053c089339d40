import colorsys
from dataclasses import replace

import numpy as np
import pytest

from vlmtrain.data.scenes.render import render
from vlmtrain.data.scenes.shapes import distance
from vlmtrain.data.scenes.things import COLOURS, SHAPES, TEXTURES, Background, Scene, Thing
from vlmtrain.data.scenes.world import make_scene, make_twin

GROUND = Background("gradient", 0.6, 0.05, 0.9, 0.05, 0.0)


def one_thing(**changes: object) -> Scene:
    return Scene((replace(Thing("circle", "red", "large", "plain", 0.5, 0.5, 0.19), **changes),), GROUND, 0)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_same_scene_gives_the_same_bytes(size: int) -> None:
    scene = make_scene(0, "train", 1)
    image = render(scene, size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert np.array_equal(image, render(Scene.from_json(scene.to_json()), size))


def test_twins_look_different() -> None:
    for index in range(40):
        scene = make_scene(0, "train", index)
        difference = render(scene, 64).astype(int) - render(make_twin(scene, 0), 64).astype(int)
        assert (np.abs(difference).max(axis=2) > 30).sum() >= 8


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_circle_and_keep_inside_it(shape: str) -> None:
    axis = np.linspace(-1.2, 1.2, 241, dtype=np.float32)
    inside = distance(shape, axis[None, :], axis[:, None]) < 0
    reach = np.hypot(axis[None, :], axis[:, None])[inside].max()
    assert 0.88 < reach < 1.06
    assert inside.sum() * 0.01**2 > 0.9


@pytest.mark.parametrize("jitter", [-1.0, 1.0])
def test_hues_of_the_colours_stay_apart(jitter: float) -> None:
    hues = []
    for colour in COLOURS:
        image = render(one_thing(colour=colour, hue_shift=jitter), 64)[26:38, 26:38].reshape(-1, 3).mean(axis=0)
        hues.append(colorsys.rgb_to_hsv(*(image / 255.0))[0] * 360.0)
    gaps = np.abs(np.subtract.outer(hues, hues))
    gaps = np.minimum(gaps, 360 - gaps) + 360 * np.eye(len(COLOURS))
    assert gaps.min() > 18


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("light", [True, False])
def test_patterns_of_small_things_outlast_64_pixels(colour: str, light: bool) -> None:
    def spread(texture: str) -> float:
        scene = one_thing(colour=colour, size="small", radius=0.115, texture=texture, light_pattern=light)
        return float(render(scene, 64)[28:36, 28:36].astype(float).mean(axis=2).std())

    plain, striped, dotted = (spread(texture) for texture in TEXTURES)
    assert striped > 3 * plain and dotted > 3 * plain


def test_things_stand_out_from_their_ground() -> None:
    for index in range(60):
        scene = make_scene(2, "train", index)
        bare = render(Scene((), scene.background, scene.seed), 64).astype(int)
        difference = np.abs(render(scene, 64).astype(int) - bare).max(axis=2)
        for thing in scene.things:
            left, right = int((thing.x - thing.radius) * 64), int((thing.x + thing.radius) * 64) + 1
            top, bottom = int((thing.y - thing.radius) * 64), int((thing.y + thing.radius) * 64) + 1
            assert np.percentile(difference[top:bottom, left:right], 90) > 60


def test_unusable_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="8 pixels wide"):
        render(make_scene(0, "train", 0), 8)
    with pytest.raises(ValueError, match="no shape"):
        render(one_thing(shape="hexagon"))
