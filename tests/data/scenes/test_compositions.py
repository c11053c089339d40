"""Composed queries of the scenes: what they ask for is there once, and neither side suffices."""

import pytest

from vlmtrain.data.scenes.compositions import CANDIDATES, label_of, make_candidate, make_composition, make_query
from vlmtrain.data.scenes.grammar import parse
from vlmtrain.data.scenes.things import Scene, held_out_pairs, held_out_relations, holds


def attributes(scene: Scene) -> set[tuple[str, str, str, str]]:
    return {thing.attributes for thing in scene.things}


@pytest.mark.parametrize("split", ["test", "compositional"])
def test_the_query_is_true_of_the_target_and_of_no_other_candidate(split: str) -> None:
    for index in range(40):
        made = make_composition(0, split, index)
        (kept,) = made.reference.things
        (added,) = (thing for thing in made.target.things if thing.attributes != kept.attributes)
        whole = made.query.replace("*", f"a {' '.join(kept.attributes)}")
        description = parse(whole)
        assert {thing.attributes for thing in description.things} == attributes(made.target)
        ((first, relation, second),) = description.relations
        things = {thing.attributes: thing for thing in made.target.things}
        told = [things[thing.attributes] for thing in description.things]
        assert holds(told[first], relation, told[second])
        assert parse(made.words).things[0].attributes == added.attributes and made.words in made.query
        others = [made.reference, *made.near_misses]
        assert all(attributes(scene) != attributes(made.target) for scene in others)
        assert sum(kept.attributes in attributes(scene) for scene in made.near_misses) >= 2, (
            "the image does not suffice"
        )
        assert sum(added.attributes in attributes(scene) for scene in made.near_misses) >= 2, "nor do the words"
        assert len({label_of(scene) for scene in (made.target, *others)}) == CANDIDATES
        grounds = [scene.background for scene in (made.target, *others)]
        assert len({(ground.hue, ground.angle) for ground in grounds}) == CANDIDATES


def test_only_the_compositional_split_shows_what_training_never_does() -> None:
    for index in range(30):
        made = make_composition(3, "test", index)
        for scene in (made.reference, made.target, *made.near_misses):
            assert not held_out_pairs(scene) and not held_out_relations(scene)
        new = make_composition(3, "compositional", index).target
        assert held_out_pairs(new) if index % 2 == 0 else held_out_relations(new)


def test_the_same_seed_gives_the_same_and_another_one_others() -> None:
    assert make_composition(0, "test", 5) == make_composition(0, "test", 5)
    assert make_composition(0, "test", 5) != make_composition(1, "test", 5) != make_composition(1, "test", 6)


def test_examples_name_their_labels() -> None:
    query, image = make_query(0, "test", 2, 32), "images/00000002.jpg"
    assert set(query.files) == {image} and query.line["image"] == image and "*" in query.line["query"]
    candidates = [make_candidate(0, "test", 2 * CANDIDATES + place, 32) for place in range(CANDIDATES)]
    labels = [candidate.line["label"] for candidate in candidates]
    assert labels[:2] == [query.line["shown"], query.line["target"]] and len(set(labels)) == CANDIDATES
    assert candidates[0].files["images/00000012.jpg"] == query.files[image], "the image of the query is a candidate"
