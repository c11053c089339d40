import json
import subprocess
import sys
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.data.scenes.things import (
    COLOURS,
    HELD_OUT_PAIRS,
    HELD_OUT_RELATIONS,
    INVERSE,
    SHAPES,
    Scene,
    held_out_pairs,
    held_out_relations,
    holds,
    main_relation,
)
from vlmtrain.data.scenes.world import SPLITS, make_scene, make_twin

SEEDS = st.integers(0, 2**63)
INDICES = st.integers(0, 2**40)


def test_held_out_pairs_take_each_colour_and_each_shape_once() -> None:
    assert sorted(colour for colour, _ in HELD_OUT_PAIRS) == sorted(COLOURS)
    assert sorted(shape for _, shape in HELD_OUT_PAIRS) == sorted(SHAPES)


def test_held_out_relations_hold_both_ways_of_saying_them() -> None:
    assert len(HELD_OUT_RELATIONS) == 12
    assert {(b, INVERSE[word], a) for a, word, b in HELD_OUT_RELATIONS} == HELD_OUT_RELATIONS


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, split=st.sampled_from(SPLITS), index=INDICES)
def test_a_scene_is_decided_by_its_key_and_survives_json(seed: int, split: str, index: int) -> None:
    scene = make_scene(seed, split, index)
    assert scene == make_scene(seed, split, index)
    assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene


def test_another_process_makes_the_same_scene() -> None:
    code = "from vlmtrain.data.scenes.world import make_scene; print(make_scene(3, 'train', 5).to_json())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(make_scene(3, "train", 5).to_json())


def test_seed_split_and_index_each_matter() -> None:
    scenes = [make_scene(seed, split, index) for seed in (0, 1) for split in ("train", "test") for index in (0, 1)]
    assert len({scene.seed for scene in scenes}) == len(scenes)


@pytest.mark.parametrize("split", ["train", "validation", "test", "text"])
def test_training_rules_leave_out_what_is_held_out(split: str) -> None:
    scenes = [make_scene(0, split, index) for index in range(1500)]
    assert not any(held_out_pairs(scene) or held_out_relations(scene) for scene in scenes)
    counts = [sum(len(scene.things) == count for scene in scenes) / len(scenes) for count in (1, 2, 3)]
    assert counts == pytest.approx([0.2, 0.4, 0.4], abs=0.08)


def test_compositional_scenes_hold_one_new_thing_each_by_turns() -> None:
    for index in range(600):
        scene = make_scene(0, "compositional", index)
        if index % 2 == 0:
            assert len(held_out_pairs(scene)) == 1 and not held_out_relations(scene)
        else:
            assert len(scene.things) >= 2 and held_out_relations(scene) and not held_out_pairs(scene)


def test_training_shows_every_pair_that_is_not_held_out() -> None:
    shown = {(thing.colour, thing.shape) for index in range(1500) for thing in make_scene(0, "train", index).things}
    assert len(shown) == len(COLOURS) * len(SHAPES) - len(HELD_OUT_PAIRS)


def test_things_lie_inside_apart_and_plainly_one_way() -> None:
    for scene in (make_scene(1, split, index) for split in ("train", "compositional") for index in range(400)):
        for thing in scene.things:
            assert thing.radius < min(thing.x, thing.y, 1 - thing.x, 1 - thing.y)
            assert (thing.radius < 0.14) == (thing.size == "small") and (thing.radius > 0.17) == (thing.size == "large")
        for first, second in combinations(scene.things, 2):
            across, down = abs(first.x - second.x), abs(first.y - second.y)
            assert across**2 + down**2 > (first.radius + second.radius) ** 2
            assert abs(across - down) > 0.04
            relation = main_relation(first, second)
            assert holds(first, relation, second) and holds(second, INVERSE[relation], first)
            assert not holds(second, relation, first)


@settings(max_examples=100, deadline=None)
@given(index=INDICES, seed=SEEDS)
def test_a_twin_differs_in_one_way_and_keeps_the_rules(index: int, seed: int) -> None:
    scene = make_scene(0, "train", index)
    twin = make_twin(scene, seed)
    assert twin == make_twin(scene, seed)
    assert not held_out_pairs(twin) and not held_out_relations(twin)
    assert (twin.background, twin.seed, len(twin.things)) == (scene.background, scene.seed, len(scene.things))
    changed = [(old, new) for old, new in zip(scene.things, twin.things, strict=True) if old != new]
    if len(changed) == 2:
        assert [old.attributes for old, _ in changed] == [new.attributes for _, new in changed]
        assert [(old.x, old.y) for old, _ in changed] == [(new.x, new.y) for _, new in reversed(changed)]
    else:
        [(old, new)] = changed
        assert sum(a != b for a, b in zip(old.attributes, new.attributes, strict=True)) == 1
        assert (old.x, old.y) == (new.x, new.y)


def test_unknown_splits_and_records_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match="use one of train"):
        make_scene(0, "training", 0)
    with pytest.raises(ValueError, match="lacks background, seed"):
        Scene.from_json({"things": []})
