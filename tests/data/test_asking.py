"""Records with several questions are asked one at a time."""

from pathlib import Path

import pytest

from vlmtrain.data.asking import OneByOne
from vlmtrain.data.record import BrokenSample
from vlmtrain.data.scenes_data import SceneQuestions
from vlmtrain.data.sources.base import Source


def test_every_record_once_per_pass_with_its_next_question(tmp_path: Path) -> None:
    data = SceneQuestions(str(tmp_path), num_train=3, num_test=4, num_compositional=0, num_processes=1, num_questions=3)
    source = data.evaluation["test"]
    assert isinstance(source, OneByOne) and isinstance(source, Source) and len(source) == 12
    plain = [source.source.read(index) for index in range(4)]
    for index in range(12):
        record, whole = source.read(index), plain[index % 4]
        assert record.images == whole.images
        assert record.extra["questions"] == [whole.extra["questions"][index // 4]]
        assert record.key == source.key(index) == f"{whole.key}#{index // 4}"
    assert len({source.key(index) for index in range(12)}) == 12
    assert len(data.train.read(0).extra["questions"]) >= 6, "training has all of them to choose from"
    assert source.fingerprint != OneByOne(source.source, 2).fingerprint


def test_a_record_with_fewer_questions_is_broken_in_later_passes(tmp_path: Path) -> None:
    data = SceneQuestions(str(tmp_path), num_train=1, num_test=1, num_compositional=0, num_processes=1)
    source = OneByOne(data.evaluation["test"], 2)  # which gives one question each
    assert source.read(0).extra["questions"]
    with pytest.raises(BrokenSample, match="it has 1 questions"):
        source.read(len(source) - 1)
    with pytest.raises(ValueError, match="times=0"):
        OneByOne(source, 0)
