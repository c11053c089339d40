"""Makes scenes and their near-identical twins, each decided by a seed, a split and an index alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.things import (
    BACKGROUNDS,
    CLEAR_DIFFERENCE,
    COLOURS,
    HELD_OUT_PAIRS,
    HELD_OUT_RELATIONS,
    INVERSE,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Background,
    Scene,
    Thing,
    held_out_pairs,
    held_out_relations,
    holds,
    main_relation,
)

__all__ = [
    "BACKGROUNDS",
    "CLEAR_DIFFERENCE",
    "COLOURS",
    "HELD_OUT_PAIRS",
    "HELD_OUT_RELATIONS",
    "INVERSE",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "TEXTURES",
    "TRAIN_SORTS",
    "Background",
    "Scene",
    "Thing",
    "held_out_pairs",
    "held_out_relations",
    "holds",
    "main_relation",
    "make_scene",
    "make_twin",
]

SPLITS = ("train", "validation", "test", "compositional", "text")
"""All but compositional follow the training rules; text scenes are written about and never drawn."""

_RADII = {"small": (0.11, 0.13), "large": (0.18, 0.205)}
_GAP = 0.025
_EDGE = 0.015
_AXIS_MARGIN = 0.05
_SPOTS = ((0.24, 0.25), (0.76, 0.33), (0.43, 0.76))
_LAYOUT_TRIES = 120
_SCENE_TRIES = 2000
TRAIN_SORTS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES if (colour, shape) not in HELD_OUT_PAIRS)
"""The colour and shape pairs that training shows."""

_Kind = tuple[str, str]


def make_scene(seed: int, split: str, index: int) -> Scene:
    """The scene of this seed, split and index; the same on every machine and in every process."""
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}: use one of {', '.join(SPLITS)}")
    draws = Draws("scene", seed, split, index)
    if split != "compositional":
        return _try_until(lambda: _draw_scene(draws, _sorts(draws)), _follows_training_rules)
    if index % 2 == 0:
        return _try_until(lambda: _draw_scene(draws, _sorts_with_held_out_pair(draws)), _has_one_new_pair)
    return _try_until(lambda: _draw_scene(draws, _sorts_with_held_out_shapes(draws)), _has_new_relation)


def make_twin(scene: Scene, seed: int) -> Scene:
    """The scene with one attribute of one thing changed, or two things changed over; adds nothing held out.

    No caption of the twin is true of the scene, so that it serves as a hard negative.
    """
    draws = Draws("twin", seed, scene.seed)
    old_pairs, old_relations = held_out_pairs(scene), held_out_relations(scene)

    def allowed(twin: Scene) -> bool:
        new = [pair for pair in held_out_pairs(twin) if pair not in old_pairs]
        new_relations = [each for each in held_out_relations(twin) if each not in old_relations]
        return not new and not new_relations and _well_placed(twin.things) and _all_unlike(twin) and twin != scene

    return _try_until(lambda: _change(scene, draws), allowed)


def _try_until(draw: Callable[[], Scene], allowed: Callable[[Scene], bool]) -> Scene:
    for _ in range(_SCENE_TRIES):
        scene = draw()
        if allowed(scene):
            return scene
    raise RuntimeError(f"no scene fits the rules after {_SCENE_TRIES} tries: the rules leave too little room")


def _follows_training_rules(scene: Scene) -> bool:
    return not held_out_pairs(scene) and not held_out_relations(scene) and _all_unlike(scene)


def _has_one_new_pair(scene: Scene) -> bool:
    return len(held_out_pairs(scene)) == 1 and not held_out_relations(scene) and _all_unlike(scene)


def _has_new_relation(scene: Scene) -> bool:
    return not held_out_pairs(scene) and bool(held_out_relations(scene)) and _all_unlike(scene)


def _all_unlike(scene: Scene) -> bool:
    """No two things share all four attributes, for then no words tell them apart."""
    return len({thing.attributes for thing in scene.things}) == len(scene.things)


def _sorts(draws: Draws) -> list[_Kind]:
    """One to three colour and shape pairs; training shows scenes of two and three things twice as often as of one."""
    count = draws.pick((1, 2, 2, 3, 3))
    return [draws.pick(TRAIN_SORTS) for _ in range(count)]


def _sorts_with_held_out_pair(draws: Draws) -> list[_Kind]:
    new = sorted(HELD_OUT_PAIRS)[draws.below(len(HELD_OUT_PAIRS))]
    return [new, *_sorts(draws)[1:]]


def _sorts_with_held_out_shapes(draws: Draws) -> list[_Kind]:
    """Pairs whose first two shapes have a combination that training never shows, if they come to stand that way."""
    first, _, second = sorted(HELD_OUT_RELATIONS)[draws.below(len(HELD_OUT_RELATIONS))]
    sorts = [draws.pick([sort for sort in TRAIN_SORTS if sort[1] == shape]) for shape in (first, second)]
    return sorts + ([draws.pick(TRAIN_SORTS)] if draws.chance(0.5) else [])


def _draw_scene(draws: Draws, sorts: Sequence[_Kind]) -> Scene:
    sizes = [draws.pick(SIZES) for _ in sorts]
    radii = [round(draws.uniform(*_RADII[size]), 4) for size in sizes]
    places = _places(draws, radii)
    things = []
    for (colour, shape), size, radius, (x, y) in zip(sorts, sizes, radii, places, strict=True):
        thing = Thing(shape, colour, size, draws.pick(TEXTURES), x, y, radius)
        things.append(_with_jitter(thing, draws))
    order = draws.order(len(things))
    return Scene(tuple(things[place] for place in order), _draw_background(draws), draws.below(2**31))


def _with_jitter(thing: Thing, draws: Draws) -> Thing:
    """Small changes that leave every attribute plain to see: a square stays a square, and orange stays orange."""
    return replace(
        thing,
        angle=round(draws.uniform(-0.2, 0.2), 4),
        hue_shift=round(draws.uniform(-1.0, 1.0), 4),
        brightness=round(draws.uniform(0.92, 1.06), 4),
        pattern_angle=round(draws.pick((0.0, 0.785, 1.571, 2.356)) + draws.uniform(-0.15, 0.15), 4),
        light_pattern=draws.chance(0.75),
    )


def _draw_background(draws: Draws) -> Background:
    value = draws.uniform(0.8, 0.94) if draws.chance(0.65) else draws.uniform(0.15, 0.3)
    return Background(
        kind=draws.pick(BACKGROUNDS),
        hue=round(draws.uniform(), 4),
        saturation=round(draws.uniform(0.03, 0.18), 4),
        value=round(value, 4),
        contrast=round(draws.uniform(0.04, 0.11), 4),
        angle=round(draws.uniform(0.0, 2 * math.pi), 4),
    )


def _places(draws: Draws, radii: Sequence[float]) -> list[tuple[float, float]]:
    """Centres inside the image that keep things apart; a fixed layout with room for all where chance finds none."""
    for _ in range(_LAYOUT_TRIES):
        places = [(_centre(draws, radius), _centre(draws, radius)) for radius in radii]
        if _apart(places, radii):
            return places
    return _roomy_places(draws, len(radii))


def _roomy_places(draws: Draws, count: int) -> list[tuple[float, float]]:
    """The fixed spots in a random order, mirrored and moved a little: any three things fit and no place is favoured."""
    mirror_x, mirror_y, swap_axes = draws.chance(0.5), draws.chance(0.5), draws.chance(0.5)
    places = []
    for spot in draws.order(len(_SPOTS))[:count]:
        x, y = (round(centre + draws.uniform(-0.01, 0.01), 4) for centre in _SPOTS[spot])
        x, y = (round(1 - x, 4) if mirror_x else x), (round(1 - y, 4) if mirror_y else y)
        places.append((y, x) if swap_axes else (x, y))
    return places


def _centre(draws: Draws, radius: float) -> float:
    """Rounded before the rules are checked, so that they hold of the very numbers that are kept."""
    return round(draws.uniform(radius + _EDGE, 1 - radius - _EDGE), 4)


def _apart(places: Sequence[tuple[float, float]], radii: Sequence[float]) -> bool:
    """No two overlap, and for each two one axis is plainly the one along which they differ more."""
    for second in range(1, len(places)):
        for first in range(second):
            across = abs(places[first][0] - places[second][0])
            down = abs(places[first][1] - places[second][1])
            if math.hypot(across, down) < radii[first] + radii[second] + _GAP or abs(across - down) < _AXIS_MARGIN:
                return False
    return True


def _well_placed(things: Sequence[Thing]) -> bool:
    inside = all(
        thing.radius + _EDGE - 1e-4 <= centre <= 1 - thing.radius - _EDGE + 1e-4
        for thing in things
        for centre in (thing.x, thing.y)
    )
    return inside and _apart([(thing.x, thing.y) for thing in things], [thing.radius for thing in things])


def _change(scene: Scene, draws: Draws) -> Scene:
    """The scene with one change, which may break a rule; the same scene where the change is none."""
    things = list(scene.things)
    if len(things) > 1 and draws.chance(0.35):
        first, second = draws.order(len(things))[:2]
        one, other = things[first], things[second]
        things[first] = replace(one, x=other.x, y=other.y)
        things[second] = replace(other, x=one.x, y=one.y)
        swapped = replace(scene, things=tuple(things))
        return swapped if _no_caption_shared(scene, swapped) else scene
    place = draws.below(len(things))
    thing = things[place]
    what = draws.pick(("colour", "shape", "size", "texture"))
    if what == "colour":
        things[place] = replace(thing, colour=draws.pick(COLOURS))
    elif what == "shape":
        things[place] = replace(thing, shape=draws.pick(SHAPES))
    elif what == "texture":
        things[place] = replace(thing, texture=draws.pick(TEXTURES))
    else:
        size = "small" if thing.size == "large" else "large"
        things[place] = replace(thing, size=size, radius=round(draws.uniform(*_RADII[size]), 4))
    return replace(scene, things=tuple(things))


def _no_caption_shared(scene: Scene, twin: Scene) -> bool:
    """Whether each caption of the twin says something false of the scene: it leaves at most one pair unsaid."""
    pairs = [(first, second) for second in range(len(scene.things)) for first in range(second)]
    false = sum(
        not holds(scene.things[first], main_relation(twin.things[first], twin.things[second]), scene.things[second])
        for first, second in pairs
    )
    return false >= max(1, len(pairs) - 1)
