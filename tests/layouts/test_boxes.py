"""Boxes as text: read back within half a place, and refused where they are none."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlmtrain.layouts.boxes import Box, place_tokens, read_box, write_box

SIDES = st.floats(0, 1)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, right, top, bottom = (draw(SIDES) for _ in range(4))
    left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
    assume(right - left > 1e-6 and bottom - top > 1e-6)
    return Box(left, top, right, bottom)


@settings(deadline=None)
@given(boxes(), st.integers(2, 2000))
def test_what_is_written_is_read_to_half_a_place(box: Box, num_places: int) -> None:
    told = read_box(write_box(box, num_places), num_places)
    if told is None:  # two sides fell on one place
        assert min(box.right - box.left, box.bottom - box.top) <= 1 / (num_places - 1)
        return
    half = 0.5 / (num_places - 1) + 1e-9
    for name in ("left", "top", "right", "bottom"):
        assert abs(getattr(told, name) - getattr(box, name)) <= half


@settings(deadline=None)
@given(boxes(), boxes())
def test_overlap_is_that_of_areas(first: Box, second: Box) -> None:
    assert first.overlap(first) == pytest.approx(1)
    assert first.overlap(second) == pytest.approx(second.overlap(first))
    assert 0 <= first.overlap(second) <= 1 + 1e-9


def test_overlap_by_hand() -> None:
    assert Box(0, 0, 0.5, 0.5).overlap(Box(0.25, 0, 0.75, 0.5)) == pytest.approx(1 / 3)
    assert Box(0, 0, 0.5, 0.5).overlap(Box(0.5, 0, 1, 0.5)) == 0


def test_the_order_is_top_left_bottom_right() -> None:
    assert write_box(Box(0.0, 0.5, 0.25, 1.0), 5) == "<place_2><place_0><place_4><place_1>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "here",
        "<place_1><place_1><place_2>",
        "<place_1><place_1><place_2><place_2><place_3>",
        "at <place_1><place_1><place_2><place_2>",
        "<place_2><place_1><place_1><place_2>",  # upside down
        "<place_1><place_1><place_1><place_2>",  # no height
        "<place_1><place_1><place_2><place_9>",  # beyond the edge
    ],
)
def test_what_is_no_box(text: str) -> None:
    assert read_box(text, 5) is None


def test_blanks_around_do_not_matter() -> None:
    assert read_box(" <place_0> <place_0> <place_1> <place_1>\n", 2) == Box(0, 0, 1, 1)


@pytest.mark.parametrize("sides", [(0.5, 0, 0.5, 1), (0.6, 0, 0.5, 1), (0, 0, 1, 1.5), (-0.1, 0, 1, 1), (0, 3, 20, 40)])
def test_sides_of_no_box_are_refused(sides: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="divide pixels"):
        Box(*sides)


def test_places_are_counted() -> None:
    assert place_tokens(2) == ["<place_0>", "<place_1>"]
    with pytest.raises(ValueError, match="num_places=1"):
        place_tokens(1)
