"""The embedded world goes through the ordinary sources, and is the same in every format."""

from pathlib import Path

import pytest

from vlmtrain.data.scenes_data import Scenes, SceneTexts
from vlmtrain.data.sources.base import Source


def test_the_same_scenes_in_every_format(tmp_path: Path) -> None:
    read = {}
    for format in ("webdataset", "jsonl", "parquet"):
        data = Scenes(str(tmp_path / format), format, 0, 6, 3, 2, num_processes=1)  # type: ignore[arg-type]
        assert isinstance(data.train, Source)
        sources = {"train": data.train, **data.evaluation}
        assert {name: len(source) for name, source in sources.items()} == {"train": 6, "test": 3, "compositional": 2}
        records = [source.read(index) for source in sources.values() for index in range(len(source))]
        read[format] = [(record.image, record.captions, record.extra) for record in records]
        assert all(set(record.extra) >= {"questions", "scene"} for record in records)
    assert read["webdataset"] == read["jsonl"] == read["parquet"]


def test_a_split_of_none_is_left_out_and_twins_come_in_pairs(tmp_path: Path) -> None:
    data = Scenes(str(tmp_path / "scenes"), num_train=4, num_test=2, num_compositional=0, num_processes=1, twins=True)
    assert list(data.evaluation) == ["test"] and data.together == 2 and len(data.train) == 4


def test_a_folder_of_other_scenes_is_not_taken_for_these(tmp_path: Path) -> None:
    Scenes(str(tmp_path / "scenes"), num_train=4, num_test=2, num_compositional=2, num_processes=1)
    with pytest.raises(ValueError, match="seed 0 and not 1"):
        Scenes(str(tmp_path / "scenes"), seed=1, num_train=4, num_test=2, num_compositional=2, num_processes=1)


def test_another_version_of_the_world_stays_beside_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"num_train": 4, "num_test": 2, "num_compositional": 2, "num_processes": 1}
    old = Scenes(str(tmp_path / "scenes"), **sizes)
    monkeypatch.setattr("vlmtrain.data.scenes_data.VERSION", 999)
    Scenes(str(tmp_path / "scenes"), **sizes)
    assert len(list((tmp_path / "scenes").iterdir())) == 2 and old.train.read(0).captions


def test_texts_are_made_without_a_folder() -> None:
    data = SceneTexts(seed=0, num_train=50, num_held_out=5)
    assert len(data.train) == 50 and len(data.evaluation["held_out"]) == 5
    held_out = data.evaluation["held_out"].read(0)
    assert held_out.image == b"" and held_out.captions[0] != data.train.read(0).captions[0]
