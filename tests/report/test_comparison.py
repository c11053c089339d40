"""A comparison as page, table and chart."""

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from vlmtrain.report.comparison import Comparison, Entry, Spread
from vlmtrain.report.comparison_page import render_comparison
from vlmtrain.report.comparison_table import draw_comparison, spell_spread, write_markdown
from vlmtrain.report.highlights import headline_names
from vlmtrain.report.line_chart import Line, draw_chart, style_of


def entry(name: str, losses: list[float], **changes: object) -> Entry:
    curves = {
        "s/test/loss": [[(10 * step, loss) for step, loss in enumerate(losses, 1)]],
        "s/flat": [[(1, 0.0), (2, 0.0)]],
    }
    plain = {"s/test/loss": Spread([losses[-1]]), "s/test/accuracy": Spread([0.5])}
    values = {"settings": {"optimizer.lr": 1e-3}, "states": ["done"], "seeds": [0], "metrics": plain, "curves": curves}
    return Entry(name, **(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def comparison() -> Comparison:
    entries = [
        entry("<b>first</b>", [3.0, 1.0]),
        entry("second", [3.0, 2.0], states=["failed"], reason="killed & gone"),
    ]
    return Comparison(entries, ["optimizer.lr"], ["s/test/loss"], "s/test/loss", "lowest")


def test_a_page_needs_no_script_and_no_other_file_and_escapes_what_it_shows(comparison: Comparison) -> None:
    page = render_comparison(comparison, "sweep <mine>", "vlmtrain compare 'a b'")
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            tags.append(tag)
            assert not {name for name, _ in attributes} & {"src", "href", "onclick"}

    Reader().feed(page)
    assert not {"script", "link", "img", "b"} & set(tags)
    assert "&lt;b&gt;first&lt;/b&gt;" in page and "killed &amp; gone" in page and "sweep &lt;mine&gt;" in page
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert tags.count("tr") == 3 + 3 and '<tr class="best">' in page
    assert tags.count("figure") == 1, "what never changes has no chart"
    assert '<tr class="failed">' in page


def test_every_colour_of_a_line_is_there_light_and_dark(comparison: Comparison) -> None:
    page = render_comparison(comparison, "x")
    for number in range(12):
        colour = style_of(number).split()[0]
        assert f".{colour} {{ color: var(--{colour}); }}" in page and page.count(f"--{colour}:") == 2
    assert style_of(9) == "line-1 dashed"


def test_a_chart_is_svg_within_its_frame() -> None:
    lines = [Line("a", 0, [(step, math.sin(step)) for step in range(1000)]), Line("b & c", 1, [(0, 2.0), (999, -3.5)])]
    chart = ElementTree.fromstring(draw_chart(lines, "title"))
    pairs = [pair for line in chart.iter("polyline") for pair in line.get("points", "").split()]
    points = [tuple(map(float, pair.split(","))) for pair in pairs]
    assert 300 < len(points) < 420, "long lines are thinned out"
    assert all(0 <= x <= 560 and 0 <= y <= 300 for x, y in points)
    assert [each.text for each in chart.iter("title")] == [f"a: {math.sin(999):.4g}", "b & c: -3.5"]


@pytest.mark.parametrize("points", [[(0, 1.0)], [(5, 0.0), (6, 0.0)], [(1, 1e-9), (2, 2e-9)], [(1, -1e8), (9, 1e8)]])
def test_a_chart_of_any_scale_has_ticks_that_differ(points: list[tuple[int, float]]) -> None:
    ticks = re.findall(r'text-anchor="end">([^<]+)</text>', draw_chart([Line("a", 0, points)], "t"))[:-1]
    assert len(ticks) >= 2 and len(set(ticks)) == len(ticks)


def test_one_run_that_diverges_leaves_the_chart_and_the_others_stay_readable() -> None:
    calm = [Line(str(number), number, [(step, 1.0 + 0.1 * number) for step in range(10)]) for number in range(5)]
    wild = Line("wild", 5, [(0, 1.2), (1, 60.0), (2, 90.0)])
    chart = draw_chart([*calm, wild], "t")
    assert "a line goes up to 90" in chart and "goes up to" not in draw_chart(calm, "t")
    heights = {float(y) for y in re.findall(r'points="[\d.]+,([\d.-]+) ', chart)}
    assert max(heights) - min(heights) > 100, "of 254 pixels"


def test_what_is_not_finite_leaves_a_gap() -> None:
    points = [(1, 1.0), (2, math.nan), (3, 2.0), (4, math.inf), (5, 3.0)]
    assert draw_chart([Line("a", 0, points)], "t").count("<polyline") == 3
    assert "no finite value" in draw_chart([Line("a", 0, [(1, math.nan)])], "t")


def test_the_table_has_mean_spread_and_reason(comparison: Comparison, to_text) -> None:  # type: ignore[no-untyped-def]
    shown = to_text(draw_comparison(comparison), width=160)
    assert "killed & gone" in shown and "0.001" in shown
    assert "| second | failed: killed & gone | 2 | 0.001 |" in write_markdown(comparison, "x")
    assert spell_spread("s/test/loss", Spread([1.0, 2.0])) == "1.5 ± 0.71"
    assert spell_spread("s/test/accuracy", Spread([0.5, 0.6])) == "55.0 % ± 7.1 %"
    assert spell_spread("s/test/loss", None) == "" and math.isnan(Spread([1.0, math.inf]).deviation or 0)


def test_a_comparison_begins_with_the_last_stages_shares_else_with_its_losses() -> None:
    names = ["a/test/caption_accuracy", "b/test/loss", "b/test/caption_accuracy", "b/test/pairs/caption_accuracy"]
    assert headline_names(names, "b") == ["b/test/caption_accuracy"]
    assert headline_names(names[:2], "b") == ["b/test/loss"]
    assert headline_names(names, "c") == ["c/loss"]
