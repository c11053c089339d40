"""Where the things of a scene are: boxes around what is drawn, and questions for them."""

import numpy as np

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.refer import refer
from vlmtrain.data.scenes.render import outline_of
from vlmtrain.data.scenes.things import Scene, Thing
from vlmtrain.layouts.boxes import Box

FINENESS = 96  # points across a thing, so that a side is right to a hundredth of it
_ASKING = ("where is {}?", "where do you see {}?")


def box_of(thing: Thing) -> Box:
    """Around the shape as it is turned, without its shadow; cut at the edges of the image."""
    axis = (np.arange(FINENESS, dtype=np.float32) + 0.5) / FINENESS * 2.2 - 1.1  # a little more than its circle
    x, y = np.meshgrid(axis * np.float32(thing.radius), axis * np.float32(thing.radius))
    inside = outline_of(thing, x, y) <= 0
    columns, rows = x[0, inside.any(axis=0)], y[inside.any(axis=1), 0]
    half = 1.1 * thing.radius / FINENESS  # points stand for what is around them
    sides = (
        columns[0] - half + thing.x,
        rows[0] - half + thing.y,
        columns[-1] + half + thing.x,
        rows[-1] + half + thing.y,
    )
    return Box(*(min(max(float(side), 0.0), 1.0) for side in sides))


def ask_for_places(scene: Scene) -> list[tuple[str, Thing]]:
    """A question for every thing that words can single out, in an order of chance that the scene's seed decides."""
    draws = Draws("places", scene.seed)
    found = []
    for place in draws.order(len(scene.things)):
        thing = scene.things[place]
        phrase = refer(scene, thing, "", draws)
        if phrase is not None:
            found.append((draws.pick(_ASKING).format(phrase), thing))
    return found
