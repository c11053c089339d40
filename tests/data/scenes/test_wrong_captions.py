"""Captions with the colours of two things exchanged."""

from collections import Counter

import pytest

from vlmtrain.data.record import Record
from vlmtrain.data.scenes.grammar import caption, judge
from vlmtrain.data.scenes.things import COLOURS
from vlmtrain.data.scenes.world import make_scene
from vlmtrain.data.scenes.wrong_captions import SwappedColours


@pytest.mark.parametrize("split", ["test", "compositional"])
def test_the_same_words_in_another_order_and_false(split: str) -> None:
    made = 0
    for index in range(80):
        scene = make_scene(5, split, index)
        true = caption(scene, index)
        wrong = SwappedColours()(Record("a", [], [true], {"scene": scene.to_json()}))
        if wrong is None:
            continue
        made += 1
        assert judge(true, scene).correct and not judge(wrong, scene).correct
        assert Counter(wrong.split()) == Counter(true.split())
        differs = [(one, other) for one, other in zip(true.split(), wrong.split(), strict=True) if one != other]
        assert len(differs) == 2 and all(one in COLOURS and other in COLOURS for one, other in differs)
        assert len({thing.colour for thing in scene.things}) > 1
    assert made > 40


def test_one_colour_alone_cannot_be_swapped_and_a_scene_is_needed() -> None:
    alone = next(scene for index in range(30) if len((scene := make_scene(1, "test", index)).things) == 1)
    record = Record("a", [], [caption(alone, 0)], {"scene": alone.to_json()})
    assert SwappedColours()(record) is None
    with pytest.raises(ValueError, match="'b' carries no scene"):
        SwappedColours()(Record("b", [], ["a red circle"]))
