"""The things of a scene, where they stand to each other, and which combinations training never shows."""

from dataclasses import asdict, dataclass
from typing import Any

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
SIZES = ("small", "large")
TEXTURES = ("plain", "striped", "dotted")
RELATIONS = ("left", "right", "above", "below")
INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
BACKGROUNDS = ("gradient", "clouds", "linen", "glow")

CLEAR_DIFFERENCE = 0.04
"""A relation holds from this difference of centres on, in widths of the image."""

HELD_OUT_PAIRS = frozenset(
    {
        ("red", "triangle"),
        ("orange", "ring"),
        ("yellow", "square"),
        ("green", "heart"),
        ("blue", "cross"),
        ("purple", "star"),
        ("pink", "circle"),
    }
)
"""Colour and shape pairs kept for the compositional split: each colour once and each shape once."""

_HELD_OUT_ONE_WAY = (
    ("circle", "left", "star"),
    ("heart", "above", "square"),
    ("triangle", "left", "ring"),
    ("cross", "above", "circle"),
    ("ring", "above", "star"),
    ("square", "left", "cross"),
)
HELD_OUT_RELATIONS = frozenset(_HELD_OUT_ONE_WAY) | {(b, INVERSE[word], a) for a, word, b in _HELD_OUT_ONE_WAY}
"""Shape, relation, shape combinations kept for the compositional split, with the same said from the other side."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn thing: four attributes that captions name, a place, and jitter that they do not name."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    hue_shift: float = 0.0
    brightness: float = 1.0
    pattern_angle: float = 0.785
    light_pattern: bool = True

    @property
    def attributes(self) -> tuple[str, str, str, str]:
        """Size, colour, texture and shape, in the order that captions name them."""
        return self.size, self.colour, self.texture, self.shape


@dataclass(frozen=True, slots=True)
class Background:
    """A pale or dark ground of little colour, so that the things stand out."""

    kind: str
    hue: float
    saturation: float
    value: float
    contrast: float
    angle: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a background; x grows rightwards and y downwards, both from 0 to 1; the seed keys the fine grain."""

    things: tuple[Thing, ...]
    background: Background
    seed: int

    def to_json(self) -> dict[str, Any]:
        """The scene as a dict that json can write."""
        things = [asdict(thing) for thing in self.things]
        return {"things": things, "background": asdict(self.background), "seed": self.seed}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Scene":
        """The scene that to_json wrote."""
        missing = sorted({"things", "background", "seed"} - set(record))
        if missing:
            raise ValueError(f"the scene record lacks {', '.join(missing)}: write it with Scene.to_json")
        things = tuple(Thing(**thing) for thing in record["things"])
        return cls(things=things, background=Background(**record["background"]), seed=int(record["seed"]))


def main_relation(first: Thing, second: Thing) -> str:
    """How the first stands to the second, along the axis on which their centres differ more."""
    across, down = first.x - second.x, first.y - second.y
    if abs(across) >= abs(down):
        return "left" if across < 0 else "right"
    return "above" if down < 0 else "below"


def holds(first: Thing, relation: str, second: Thing) -> bool:
    """Whether the relation is true of the two, on its own axis."""
    if relation not in RELATIONS:
        raise ValueError(f"{relation!r} is no relation: use one of {', '.join(RELATIONS)}")
    difference = second.x - first.x if relation in ("left", "right") else second.y - first.y
    return (difference if relation in ("left", "above") else -difference) >= CLEAR_DIFFERENCE


def held_out_pairs(scene: Scene) -> list[tuple[str, str]]:
    """The colour and shape pairs of the scene that training never shows, one per thing that has one."""
    return [pair for thing in scene.things if (pair := (thing.colour, thing.shape)) in HELD_OUT_PAIRS]


def held_out_relations(scene: Scene) -> list[tuple[str, str, str]]:
    """The combinations of the scene that training never shows, over all pairs of things, each named one way."""
    found = []
    for place, first in enumerate(scene.things):
        for second in scene.things[place + 1 :]:
            combination = (first.shape, main_relation(first, second), second.shape)
            if combination in HELD_OUT_RELATIONS:
                found.append(combination)
    return found
