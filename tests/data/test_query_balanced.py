"""No query above the cap, the same draw every time."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.data.query_balanced import QueryBalanced, choose, read_queries
from vlmtrain.data.record import BrokenSample, Record


class Captioned:
    name = "captioned"
    fingerprint = "f"

    def __init__(self, captions: list[str], keys: list[str] | None = None) -> None:
        self.captions = captions
        self.keys = keys or [f"k{place}" for place in range(len(captions))]

    def __len__(self) -> int:
        return len(self.captions)

    def key(self, index: int) -> str:
        return self.keys[index]

    def read(self, index: int) -> Record:
        if self.captions[index] == "broken":
            raise BrokenSample(self.keys[index], "it is")
        return Record(self.keys[index], [b""], ["nothing of note", self.captions[index]])


@dataclass
class Pairs:
    train: Any
    evaluation: dict[str, Any] = field(default_factory=dict)
    together: int = 1


WORDS = ["red", "blue", "ring", "star", "a"]
CAPTIONS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join), min_size=1, max_size=30)
QUERIES = [("red",), ("ring",), ("red", "ring"), ("star",)]


def count(captions: list[str]) -> Counter[tuple[str, ...]]:
    """How many captions hold each query, by another way than the module's."""
    return Counter(query for query in QUERIES for text in captions if f" {' '.join(query)} " in f" {text} ")


@settings(max_examples=60, deadline=None)
@given(captions=CAPTIONS, cap=st.integers(1, 6), seed=st.integers(0, 5))
def test_t18_no_query_exceeds_the_cap_and_no_pair_is_left_that_has_room(captions, cap, seed) -> None:
    kept = choose(Captioned(captions), QUERIES, cap, seed)
    counts = count([captions[index] for index in kept])
    assert all(number <= cap for number in counts.values())
    assert kept == sorted(set(kept)) == choose(Captioned(captions), QUERIES, cap, seed)
    for index in set(range(len(captions))) - set(kept):
        own = count([captions[index]])
        assert not own or any(counts[query] == cap for query in own), "it was left out without need"


def test_t18_the_draw_hangs_on_seed_and_keys_and_not_on_the_order() -> None:
    captions, keys = ["a red ring"] * 40, [f"k{place}" for place in range(40)]
    kept = {keys[index] for index in choose(Captioned(captions, keys), QUERIES, 10, 0)}
    turned = keys[::-1]
    assert {turned[index] for index in choose(Captioned(captions, turned), QUERIES, 10, 0)} == kept
    assert {keys[index] for index in choose(Captioned(captions, keys), QUERIES, 10, 1)} != kept
    assert len(kept) == 10


def test_as_data_it_keeps_pairs_that_hold_a_query_and_leaves_the_evaluation(tmp_path: Path) -> None:
    held_out = Captioned(["blue"])
    source = Captioned(["a RED, ring.", "broken", "blue", "star", "star", "redring"])
    balanced = QueryBalanced(Pairs(source, {"held_out": held_out}), ["red  Ring", " ", "star"], 1)
    assert balanced.evaluation == {"held_out": held_out} and balanced.together == 1
    kept = [balanced.train.read(index).captions[1] for index in range(len(balanced.train))]
    assert sorted(kept) == ["a RED, ring.", "star"]
    file = tmp_path / "queries.txt"
    file.write_text("Red ring\n\nstar\n")
    assert read_queries(str(file)) == [("red", "ring"), ("star",)]


def test_what_cannot_be_is_refused() -> None:
    pairs = Pairs(Captioned(["a red ring"]))
    with pytest.raises(ValueError, match="must be 1 or more"):
        QueryBalanced(pairs, ["red"], 0)
    with pytest.raises(ValueError, match="there are 0 queries"):
        QueryBalanced(pairs, [" "])
    with pytest.raises(ValueError, match="holds any of the 1 queries"):
        QueryBalanced(pairs, ["star"])
    with pytest.raises(ValueError, match="no such file"):
        QueryBalanced(pairs, "nowhere.txt")
    with pytest.raises(ValueError, match="come together"):
        QueryBalanced(Pairs(Captioned(["red"]), together=2), ["red"])
