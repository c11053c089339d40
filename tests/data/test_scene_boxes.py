"""Boxes of scenes: around what is drawn, asked for by phrases that mean one thing."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlmtrain.config.compose import compose
from vlmtrain.data.scene_boxes import SceneBoxes
from vlmtrain.data.scenes.places import ask_for_places, box_of
from vlmtrain.data.scenes.render import render
from vlmtrain.data.scenes.things import SHAPES, Scene
from vlmtrain.data.scenes.world import make_scene
from vlmtrain.layouts.boxes import Box, place_tokens, read_box

SIZE = 256


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SceneBoxes:
    folder = str(tmp_path_factory.mktemp("scenes"))
    return SceneBoxes(folder, num_train=40, num_test=10, num_compositional=10, num_places=64, num_questions=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_is_around_what_is_drawn(shape: str) -> None:
    """Drawn twice in two colours, and nothing but the thing differs; its shadow does not."""
    for seed in range(3):
        scene = make_scene(seed, "train", 0)
        thing = replace(scene.things[0], shape=shape, texture="plain", colour="blue", x=0.5, y=0.45)
        images = [
            render(replace(scene, things=(replace(thing, colour=colour),)), SIZE).astype(int)
            for colour in ("blue", "red")
        ]
        rows, columns = np.nonzero(np.abs(images[0] - images[1]).max(axis=2) > 40)
        drawn = Box(columns.min() / SIZE, rows.min() / SIZE, (columns.max() + 1) / SIZE, (rows.max() + 1) / SIZE)
        found = box_of(thing)
        for name in ("left", "top", "right", "bottom"):
            assert abs(getattr(drawn, name) - getattr(found, name)) <= 1.5 / SIZE, (shape, name)


def test_a_thing_at_the_edge_is_cut(data: SceneBoxes) -> None:
    thing = replace(make_scene(0, "train", 0).things[0], shape="circle", x=0.02, y=0.98)
    box = box_of(thing)
    assert box.left == 0 and box.bottom == 1


def test_every_phrase_means_one_thing_and_its_answer_is_its_box(data: SceneBoxes) -> None:
    for index in range(len(data.train)):
        record = data.train.read(index)
        scene = Scene.from_json(record.extra["scene"])
        asked = {text: thing for text, thing in ask_for_places(scene)}
        assert len(asked) == len(record.extra["questions"]) > 0
        for question in record.extra["questions"]:
            box = Box(*question["box"])
            assert box == box_of(asked[question["text"]])
            told = read_box(question["answer"], 64)
            assert told is not None and told.overlap(box) > 0.8
        Image.open(io.BytesIO(record.images[0])).verify()


def test_held_out_records_are_asked_one_question(data: SceneBoxes) -> None:
    assert {split: len(source) for split, source in data.evaluation.items()} == {"test": 10, "compositional": 10}
    assert all(len(data.evaluation["test"].read(index).extra["questions"]) == 1 for index in range(10))


def test_the_fingerprint_knows_of_places(data: SceneBoxes, tmp_path: Path) -> None:
    sizes = {"num_train": 40, "num_test": 10, "num_compositional": 10}
    coarser = SceneBoxes(str(tmp_path), **sizes, num_places=16)
    assert coarser.train.fingerprint != data.train.fingerprint


def test_the_experiment_has_a_token_for_every_place() -> None:
    config = compose(["experiment=referring"]).config
    written = config["stages"]["boxes"]["model"]["adaptation"]["written"]
    assert written == place_tokens(config["data"]["num_places"])
