"""Single things to be classified, and shifted versions of them."""

import pickle
from collections import Counter

import pytest

from vlmtrain.data.record import Record
from vlmtrain.data.scene_classes import SceneClasses
from vlmtrain.data.scenes.judging import judge
from vlmtrain.data.scenes.things import HELD_OUT_PAIRS, Scene
from vlmtrain.data.shifted import Shifted
from vlmtrain.data.shifts.noise import Noise
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.made import MadeRecords

NEW = {" ".join(pair) for pair in HELD_OUT_PAIRS}


def test_classes_come_evenly_and_only_compositional_and_examples_have_new_pairs() -> None:
    data = SceneClasses(num_test=42, num_compositional=14, num_shots=1)
    found = {
        split: Counter(source.read(index).extra["class"] for index in range(len(source)))
        for split, source in {"train": data.train, **data.evaluation}.items()
    }
    assert len(data.classes) == len(set(data.classes)) == 49
    assert set(found["test"]) == set(data.classes) - NEW and set(found["test"].values()) == {1}
    assert set(found["compositional"]) == NEW and set(found["compositional"].values()) == {2}
    assert set(found["train"]) == set(data.classes) and set(found["train"].values()) == {1}


def test_a_picture_shows_its_class_and_no_picture_is_another_split_s() -> None:
    data = SceneClasses(num_test=3, num_compositional=3, num_shots=1)
    images: set[bytes] = set()
    for source in (data.train, *data.evaluation.values()):
        for index in range(3):
            record = source.read(index)
            scene = Scene.from_json(record.extra["scene"])
            assert [f"{thing.colour} {thing.shape}" for thing in scene.things] == [record.extra["class"]]
            assert all(judge(caption, scene).correct for caption in record.captions)
            images.add(record.image)
    assert len(images) == 9


def test_made_records_are_a_source_that_pickles_and_tells_what_it_holds() -> None:
    source = SceneClasses(num_test=3).evaluation["test"]
    assert isinstance(source, Source) and isinstance(source, MadeRecords)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.read(2) == source.read(2) and copy.fingerprint == source.fingerprint
    assert source.fingerprint != SceneClasses(seed=1, num_test=3).evaluation["test"].fingerprint
    assert source.key(2) == source.read(2).key
    with pytest.raises(IndexError, match="no record 3"):
        source.read(3)
    with pytest.raises(ValueError, match="num_records=0"):
        SceneClasses(num_test=0)


def test_shifted_versions_stand_beside_their_split() -> None:
    plain = SceneClasses(num_test=2, num_compositional=2, num_shots=1)
    data = Shifted(plain, {"noise": Noise()})
    assert list(data.evaluation) == ["test", "compositional", "test/noise"]
    assert (data.classes, data.templates, data.train) == (plain.classes, plain.templates, plain.train)
    base, noisy = data.evaluation["test"], data.evaluation["test/noise"]
    records: list[tuple[Record, Record]] = [(base.read(index), noisy.read(index)) for index in range(2)]
    assert all(one.image != other.image and one.extra == other.extra for one, other in records)
    assert noisy.fingerprint != base.fingerprint and noisy.name.endswith("noise")


def test_what_cannot_be_shifted_is_refused() -> None:
    with pytest.raises(ValueError, match="no split 'tset'"):
        Shifted(SceneClasses(), {"noise": Noise()}, split="tset")
    with pytest.raises(ValueError, match="must name a shift"):
        Shifted(SceneClasses(), {})
