"""Documents of the embedded world."""

from pathlib import Path

import pytest

from vlmtrain.data.forms.interleaved import Interleaved
from vlmtrain.data.scene_documents import SceneDocuments
from vlmtrain.data.scenes.document_judge import DocumentJudge
from vlmtrain.data.scenes.documents import MakeDocument
from vlmtrain.data.scenes.grammar import judge
from vlmtrain.data.scenes.things import Scene, held_out_pairs
from vlmtrain.layout import Text, Visual


def test_the_same_seed_and_index_give_the_same_bytes() -> None:
    one, other = MakeDocument()(3, "train", 5, 32), MakeDocument()(3, "train", 5, 32)
    assert one == other
    assert one != MakeDocument()(4, "train", 5, 32) and one.files != MakeDocument()(3, "test", 5, 32).files


@pytest.mark.parametrize("max_things", [1, 3])
def test_every_caption_is_true_of_the_image_before_it(max_things: int) -> None:
    for split in ("train", "compositional"):
        for index in range(12):
            line = MakeDocument(max_things)(0, split, index, 16).line
            scenes = [Scene.from_json(scene) for scene in line["scenes"]]
            captions = [text for text in line["texts"] if text is not None]
            assert len(captions) == len(scenes) in (3, 4)
            assert line["images"][1::2] == [None] * len(scenes) == line["texts"][::2]
            assert all(judge(text, scene).correct for text, scene in zip(captions, scenes, strict=True))
            assert all(judge(text, scenes[-1]).correct for text in line["captions"])
            assert all(len(scene.things) <= max_things for scene in scenes)
            assert all(bool(held_out_pairs(scene)) == (split == "compositional") for scene in scenes)


def test_they_go_through_the_users_source_and_form(tmp_path: Path) -> None:
    data = SceneDocuments(str(tmp_path), num_train=5, num_test=3, num_compositional=0, num_processes=1, image_size=32)
    assert len(data.train) == 5 and list(data.evaluation) == ["test"] and len(data.evaluation["test"]) == 3
    record = data.evaluation["test"].read(0)
    parts = Interleaved().parts(record, 0)
    assert [type(part) for part in parts] == [Visual, Text] * len(record.images)
    assert Interleaved().prompt_parts(record) == parts[:-1]
    again = SceneDocuments(str(tmp_path), num_train=5, num_test=3, num_compositional=0, num_processes=1, image_size=32)
    assert again.train.fingerprint == data.train.fingerprint
    with pytest.raises(ValueError, match="documents of 1 things"):
        SceneDocuments(str(tmp_path), num_train=5, num_test=3, num_compositional=0, max_things=2, image_size=32)


def test_the_judge_tells_the_last_image_from_the_first(tmp_path: Path) -> None:
    data = SceneDocuments(str(tmp_path), num_train=1, num_test=4, num_compositional=0, num_processes=1, image_size=32)
    for index in range(4):
        record = data.evaluation["test"].read(index)
        right = DocumentJudge()(record.captions[0], record)
        first = DocumentJudge()(record.extra["texts"][1], record)
        assert right.correct and right.aspects["of_an_earlier_image"] == (0.0, 1.0)
        assert not first.correct and first.aspects["of_an_earlier_image"] == (1.0, 1.0)
        assert DocumentJudge()("no such thing", record).aspects["of_an_earlier_image"] == (0.0, 1.0)
