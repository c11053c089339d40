from dataclasses import dataclass, field

import pytest

from vlmtrain.data.scenes.grammar import caption
from vlmtrain.data.scenes.scene_judge import SceneJudge
from vlmtrain.data.scenes.things import held_out_pairs, held_out_relations
from vlmtrain.data.scenes.world import make_scene


@dataclass
class Record:
    key: str
    extra: dict = field(default_factory=dict)


def test_true_captions_are_right_and_those_of_other_scenes_hardly_ever():
    scenes = [make_scene(0, "compositional", index) for index in range(40)]
    records = [Record(str(index), {"scene": scene.to_json()}) for index, scene in enumerate(scenes)]
    judge = SceneJudge()
    for index, scene in enumerate(scenes):
        verdict = judge(caption(scene, 1), records[index])
        assert verdict.correct
        right, of = verdict.aspects["things_right"]
        assert right == of == len(scene.things)
        assert ("held_out_pairs" in verdict.groups) == bool(held_out_pairs(scene))
        assert ("held_out_relations" in verdict.groups) == bool(held_out_relations(scene))
    wrong = [judge(caption(scenes[index - 1], 1), records[index]).correct for index in range(40)]
    assert sum(wrong) <= 1


def test_naming_little_or_much_does_not_help():
    index = next(i for i in range(99) if len(make_scene(0, "test", i).things) == 3)
    scene = make_scene(0, "test", index)
    record = Record("x", {"scene": scene.to_json()})
    thing = " ".join(scene.things[0].attributes)
    assert SceneJudge()(f"a {thing}", record).aspects["things_right"] == (1, 3)
    many = SceneJudge()(" and ".join([f"a {thing}"] * 5), record)
    assert not many.correct and many.aspects["things_right"][1] == 5
    assert SceneJudge()("nonsense", record).aspects["things_right"] == (0, 3)


def test_a_record_without_a_scene_is_named():
    with pytest.raises(ValueError, match="Record 'x' carries no scene"):
        SceneJudge()("a", Record("x"))
    assert SceneJudge(otherwise=lambda text, record: (text, record.key))("a", Record("x")) == ("a", "x")


def test_telling_an_earlier_picture_of_a_document_is_counted():
    drawn = [make_scene(0, "test", index) for index in range(99)]
    scenes = [scene for scene in drawn if len(scene.things) == 1][:3]
    document = Record("d", {"scene": scenes[-1].to_json(), "scenes": [scene.to_json() for scene in scenes]})
    told = {
        text: SceneJudge()(text, document).aspects["earlier_picture_told"] for text in map(caption, scenes, (1, 1, 1))
    }
    assert list(told.values()) == [(1, 1), (1, 1), (0, 1)]
    assert SceneJudge()("nonsense", document).aspects["earlier_picture_told"] == (0, 1)
    alone = Record("a", {"scene": scenes[0].to_json()})
    assert "earlier_picture_told" not in SceneJudge()("nonsense", alone).aspects
