import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.scenes.regions import Regions
from vlmtrain.data.scenes.things import Background, Scene, Thing
from vlmtrain.layout import Text, Visual

BACKGROUND = Background("linen", hue=0.5, saturation=0.1, value=0.9, contrast=0.1, angle=0.0)


def record(*things: Thing) -> Record:
    return Record("one", [], ["a star"], {"scene": Scene(things, BACKGROUND, seed=0).to_json()})


def star(x: float, y: float, size: str = "small") -> Thing:
    return Thing("star", "red", size, "plain", x, y, radius=0.1)


def test_a_thing_is_told_with_its_place() -> None:
    parts = Regions(grid=4).parts(record(star(x=0.8, y=0.3)), key=0)
    assert parts == [Visual(), Text("[7]", supervised=False), Text("small red plain star [1] [3] one")]


def test_things_are_told_in_the_order_of_captions_with_how_they_stand_to_the_others() -> None:
    ring = Thing("ring", "blue", "small", "dotted", x=0.5, y=0.9, radius=0.1)
    parts = Regions(grid=4).parts(record(ring, star(x=0.1, y=0.5), star(x=0.6, y=0.1, size="large")), key=0)
    assert [part.string for part in parts if isinstance(part, Text)] == [
        "[2]",
        "large red plain star [0] [2] one right above",
        "[8]",
        "small red plain star [2] [0] two left left",
        "[14]",
        "small blue dotted ring [3] [2] three below right",
    ]


@settings(deadline=None)
@given(x=st.floats(0, 1), y=st.floats(0, 1), grid=st.integers(1, 30))
def test_every_place_lies_on_the_grid(x: float, y: float, grid: int) -> None:
    place = Regions(grid).parts(record(star(x, y)), key=0)[1]
    assert isinstance(place, Text) and 0 <= int(place.string.strip("[]")) < grid * grid


def test_a_record_that_does_not_say_where_things_are_is_set_aside() -> None:
    with pytest.raises(BrokenSample, match="does not say where its things are"):
        Regions(grid=4).parts(Record("one", [], ["a star"]), key=0)
