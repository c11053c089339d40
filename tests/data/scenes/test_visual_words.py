"""Words that name what is to be seen."""

from vlmtrain.data.scenes.grammar import caption
from vlmtrain.data.scenes.visual_words import VisualWords
from vlmtrain.data.scenes.words import vocabulary
from vlmtrain.data.scenes.world import make_scene


def test_every_attribute_of_every_thing_is_found_in_its_caption() -> None:
    kind_of = VisualWords()
    for index in range(60):
        scene = make_scene(3, "train", index)
        asked = [found for word in caption(scene, index).split() if (found := kind_of(word.rstrip(",")))]
        told = sorted((kind, right) for kind, right in asked if kind in ("colour", "shape"))
        named = [("colour", [thing.colour]) for thing in scene.things] + [
            ("shape", [thing.shape]) for thing in scene.things
        ]
        assert told == sorted(named)
        assert (
            sum(kind == "size" for kind, _ in asked) == sum(kind == "texture" for kind, _ in asked) == len(scene.things)
        )


def test_words_for_one_size_are_as_right_and_other_words_are_not_asked_for() -> None:
    kind_of = VisualWords()
    assert kind_of("little") == kind_of("small") == ("size", ["small", "little"])
    assert kind_of("stripes") == ("texture", ["stripes"])
    asked = {word for word in vocabulary() if kind_of(word)}
    assert vocabulary() != [] and len(asked) == 7 + 7 + 4 + 5
    assert not asked & {"a", "left", "of", "with", "above", "picture", ","}
