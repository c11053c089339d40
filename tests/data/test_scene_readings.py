"""Scenes in words with questions that their own truth answers."""

from vlmtrain.data.scene_readings import SceneReadings
from vlmtrain.data.scenes.grammar import judge
from vlmtrain.data.scenes.questions import questions
from vlmtrain.data.scenes.text import notes
from vlmtrain.data.scenes.world import make_scene


def test_every_answer_follows_from_the_text_that_is_read() -> None:
    data = SceneReadings(seed=3, num_train=60, num_held_out=4, num_questions=2)
    in_notes = 0
    for index in range(60):
        record, scene = data.train.read(index), make_scene(3, "text", index)
        assert record.images == [] and len(record.extra["questions"]) >= 5
        assert record.extra["questions"] == [each.to_json() for each in questions(scene, index)]
        in_notes += record.captions == [notes(scene)]
        assert record.captions == [notes(scene)] or judge(record.captions[0], scene).correct
    assert 40 < in_notes < 56
    assert data.train.read(5) == SceneReadings(seed=3, num_train=60).train.read(5)


def test_held_out_scenes_are_others_and_asked_one_by_one() -> None:
    data = SceneReadings(seed=3, num_train=6, num_held_out=4, num_questions=2)
    held_out = [data.evaluation["held_out"].read(index) for index in range(8)]
    assert all(len(record.extra["questions"]) == 1 for record in held_out)
    assert not {record.captions[0] for record in held_out} & {data.train.read(index).captions[0] for index in range(6)}
