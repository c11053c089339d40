"""Queries of an image and words: a picture of one thing, what else there shall be, and the picture that is meant."""

from dataclasses import dataclass, replace

from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.formats import Example
from vlmtrain.data.scenes.grammar import caption, in_order_of_telling, phrase
from vlmtrain.data.scenes.records import encode_jpeg
from vlmtrain.data.scenes.things import TEXTURES, Scene, Thing, held_out_pairs, held_out_relations, main_relation
from vlmtrain.data.scenes.words import SIDE_PHRASES
from vlmtrain.data.scenes.world import TRAIN_SORTS, make_scene

VERSION = 1
"""Raised whenever the same seed would give other compositions."""

NEAR_MISSES = 2
"""Pictures with the wanted thing beside another one, and as many with the shown thing beside another one."""

CANDIDATES = 2 + 2 * NEAR_MISSES
"""Of each composition: what the query shows, what it means, and the near misses."""

_STRIDE = 1_000_000  # even: of the compositional split, every second scene has a new pair and the others a new relation
_TRIES = 500


@dataclass(frozen=True, slots=True)
class Composition:
    """`query` asks for the target, with * where the picture of the reference stands; `words` is what it says beside."""

    reference: Scene
    target: Scene
    near_misses: tuple[Scene, ...]
    query: str
    words: str


def make_composition(seed: int, split: str, index: int) -> Composition:
    """The composition of this seed, split and index.

    The target has two things, the reference the one that captions name first.  Every picture has a background of its
    own, so that none is found by that.  Neither side suffices: who goes by the picture alone cannot tell the target
    from near misses that show the same thing, who goes by the words alone not from those with the same addition.
    """
    draws = Draws("composition", seed, split, index)
    target = _scene_of_two(seed, split, index)
    kept, added = in_order_of_telling(target)
    asked = phrase(added, draws)
    reference = replace(target, things=(kept,))
    near: list[Scene] = []
    for place in range(2 * NEAR_MISSES):
        stays, goes = (kept, added) if place % 2 else (added, kept)
        near.append(_other(target, stays, goes, draws, near))
    pictures = [_with_ground_of(each, seed, split, index, place) for place, each in enumerate((reference, *near), 1)]
    return Composition(
        reference=pictures[0],
        target=target,
        near_misses=tuple(pictures[1:]),
        query=f"* with {asked} {draws.pick(SIDE_PHRASES[main_relation(added, kept)])}",
        words=asked,
    )


def label_of(scene: Scene) -> str:
    """What a picture shows, said in one way only: pictures of the same label are equally right."""
    first, *others = in_order_of_telling(scene)
    beside = [f"{' '.join(thing.attributes)} {SIDE_PHRASES[main_relation(thing, first)][0]}" for thing in others]
    return " with ".join([" ".join(first.attributes), *beside])


def make_query(seed: int, split: str, index: int, image_size: int) -> Example:
    """The reference with its query, and by their labels what is meant and what is shown."""
    made = make_composition(seed, split, index)
    image = f"images/{index:08d}.jpg"
    line = {
        "image": image,
        "captions": [caption(made.reference, index)],
        "query": made.query,
        "words": made.words,
        "target": label_of(made.target),
        "shown": label_of(made.reference),
        "scene": made.reference.to_json(),
    }
    return Example(line, {image: encode_jpeg(made.reference, image_size)})


def make_candidate(seed: int, split: str, index: int, image_size: int) -> Example:
    """One of the pictures of a composition, among which the targets are to be found."""
    composition, place = divmod(index, CANDIDATES)
    made = make_composition(seed, split, composition)
    scene = (made.reference, made.target, *made.near_misses)[place]
    image = f"images/{index:08d}.jpg"
    line = {
        "image": image,
        "captions": [caption(scene, index)],
        "label": label_of(scene),
        "scene": scene.to_json(),
    }
    return Example(line, {image: encode_jpeg(scene, image_size)})


def _scene_of_two(seed: int, split: str, index: int) -> Scene:
    for attempt in range(_TRIES):
        scene = make_scene(seed, split, index + (attempt + 1) * _STRIDE)
        if len(scene.things) == 2:
            return scene
    raise RuntimeError(f"none of {_TRIES} scenes of split {split} has two things")


def _other(target: Scene, stays: Thing, goes: Thing, draws: Draws, taken: list[Scene]) -> Scene:
    """The target with another thing in the place of `goes`, so that it shows what no picture of `taken` does."""
    labels = {label_of(target), *map(label_of, taken)}
    for _ in range(_TRIES):
        colour, shape = draws.pick(TRAIN_SORTS)
        other = replace(goes, colour=colour, shape=shape, texture=draws.pick(TEXTURES))
        scene = replace(target, things=tuple(other if thing is goes else thing for thing in target.things))
        adds_none = len(held_out_pairs(scene)) <= len(held_out_pairs(target))
        adds_none &= set(held_out_relations(scene)) <= set(held_out_relations(target))
        if adds_none and other.attributes not in (goes.attributes, stays.attributes) and label_of(scene) not in labels:
            return scene
    raise RuntimeError(f"no near miss fits the rules after {_TRIES} tries")


def _with_ground_of(scene: Scene, seed: int, split: str, index: int, place: int) -> Scene:
    """The things before another background."""
    ground = make_scene(seed, "text", index * CANDIDATES + place + (split == "compositional") * _STRIDE)
    return replace(scene, background=ground.background, seed=ground.seed)
