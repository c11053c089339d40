import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.regions import Regions
from vlmtrain.layout import Text, Visual


def record(x: float, y: float) -> Record:
    thing = {"size": "small", "colour": "red", "texture": "plain", "shape": "star", "x": x, "y": y}
    return Record("one", b"", ["a star"], {"scene": {"things": [thing]}})


def test_a_thing_is_told_with_its_place() -> None:
    parts = Regions(grid=4).parts(record(x=0.8, y=0.3), key=0)
    assert parts == [Visual(), Text("[7]", supervised=False), Text("small red plain star [1] [3]")]


@settings(deadline=None)
@given(x=st.floats(0, 1), y=st.floats(0, 1), grid=st.integers(1, 30))
def test_every_place_lies_on_the_grid(x: float, y: float, grid: int) -> None:
    place = Regions(grid).parts(record(x, y), key=0)[1]
    assert isinstance(place, Text) and 0 <= int(place.string.strip("[]")) < grid * grid


def test_a_record_that_does_not_say_where_things_are_is_set_aside() -> None:
    with pytest.raises(BrokenSample, match="does not say where its things are"):
        Regions(grid=4).parts(Record("one", b"", ["a star"]), key=0)
