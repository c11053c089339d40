"""Several sources as one: exact shares, every record, a pure function of the position."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmtrain.data.forms.by_origin import ByOrigin
from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.forms.text_documents import TextDocuments
from vlmtrain.data.forms.video_captioning import VideoCaptioning
from vlmtrain.data.mixed import Mixed, MixedSource, Named
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.base import Source
from vlmtrain.layout import Text, Visual


class Numbers:
    name = "numbers"

    def __init__(self, count: int) -> None:
        self.count = count
        self.fingerprint = f"{count}"

    def __len__(self) -> int:
        return self.count

    def key(self, index: int) -> str:
        return str(index)

    def read(self, index: int) -> Record:
        if index == 13:
            raise BrokenSample("13", "planted")
        return Record(str(index), [], [f"text {index}"])


parts = st.lists(st.tuples(st.integers(1, 60), st.floats(0.03, 1.0)), min_size=1, max_size=4)


@given(parts)
def test_shares_are_kept_and_every_record_is_there(sizes: list[tuple[int, float]]) -> None:
    sources = {f"s{place}": Numbers(count) for place, (count, _) in enumerate(sizes)}
    shares = {f"s{place}": share for place, (_, share) in enumerate(sizes)}
    mixed = MixedSource(sources, shares)
    assert isinstance(mixed, Source)
    found = Counter(mixed.locate(index) for index in range(len(mixed)))
    for place, (count, _) in enumerate(sizes):
        times = [found[place, index] for index in range(count)]
        assert min(times) >= 1 and max(times) - min(times) <= 1
    per_source = [sum(n for (source, _), n in found.items() if source == place) for place in range(len(sizes))]
    total = sum(shares.values())
    for count, share in zip(per_source, shares.values(), strict=True):
        assert abs(count - len(mixed) * share / total) <= len(sizes), "to the rounding of each"


def data(count: int, together: int = 1) -> SimpleNamespace:
    return SimpleNamespace(train=Numbers(count), evaluation={"test": Numbers(2)}, together=together)


def test_records_say_where_they_come_from_and_get_the_form_of_it() -> None:
    mixed = Mixed({"a": data(4), "b": data(2)}, {"a": 1.0, "b": 1.0})
    assert len(mixed.train) == 8 and list(mixed.evaluation) == ["a_test", "b_test"]
    keys = [mixed.train.read(index).key for index in range(8)]
    assert keys == ["a:0", "a:1", "a:2", "a:3", "b:0", "b:1", "b:0", "b:1"]
    assert keys == [mixed.train.key(index) for index in range(8)]
    form = ByOrigin({"a": TextDocuments(), "b": Captioning()})
    assert form.parts(mixed.train.read(0), 0) == [Text("text 0")] and form.max_frames == 1
    assert form.parts(mixed.evaluation["b_test"].read(1), 0) == [Visual(), Text("text 1")]
    assert form.prompt_parts(mixed.train.read(5)) == [Visual()]
    assert ByOrigin({"a": VideoCaptioning(7), "b": Captioning()}).max_frames == 7
    with pytest.raises(BrokenSample, match="sample 'a:13': planted"):
        Named(Numbers(20), "a").read(13)
    weighted = Mixed({"a": data(4), "b": data(2)}, {"a": 1.0, "b": 1.0}, {"b": 0.2}).train
    assert [weighted.read(index).weight for index in (0, 4)] == [1.0, 0.2]
    with pytest.raises(RuntimeError, match="'a:0' comes from 'a' and there are forms for b"):
        ByOrigin({"b": Captioning()}).parts(mixed.train.read(0), 0)


def test_another_share_is_another_order_of_data() -> None:
    one, other = ({"a": Numbers(4), "b": Numbers(4)} for _ in range(2))
    assert MixedSource(one, {"a": 1, "b": 1}).fingerprint != MixedSource(other, {"a": 1, "b": 0.5}).fingerprint


@pytest.mark.parametrize(
    ("parts", "shares", "reason"),
    [
        ({}, {}, "parts none"),
        ({"a": data(2)}, {"b": 1.0}, "parts a and shares of b"),
        ({"a": data(2)}, {"a": 0.0}, "above 0"),
        ({"a": data(2, together=2)}, {"a": 1.0}, "a has samples that must come together"),
    ],
)
def test_faults_are_named(parts: dict, shares: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Mixed(parts, shares)
    with pytest.raises(ValueError, match="weights of c must be of the parts a"):
        Mixed({"a": data(2)}, {"a": 1.0}, {"c": 1.0})
    with pytest.raises(ValueError, match="forms is empty"):
        ByOrigin({})
