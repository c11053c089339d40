"""Curves as an SVG inside a page: no script, colours from the page's style, so that it is readable light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 34
NUM_COLOURS = 8  # beyond them lines are dashed, in the same colours again
MOST_TICKS = 5
MOST_POINTS = 400  # of a line; a longer one is thinned out
COMMON_SHARE, TALLEST = 0.9, 4.0  # what towers so many times above this share of the values leaves the chart
Place = Callable[[float, float], tuple[float, float]]  # (step, value) -> (x, y)


@dataclass(frozen=True)
class Line:
    """One curve; lines of one `series` share a colour."""

    label: str
    series: int
    points: Sequence[tuple[int, float]]


def draw_chart(lines: Sequence[Line], title: str) -> str:
    """The chart, with a tooltip at each line.  Values that are not finite leave gaps; one run that diverges does not
    press all others to the ground, but leaves the chart, and the chart says so."""
    finite = [(step, value) for line in lines for step, value in line.points if math.isfinite(value)]
    if not finite:
        return f'<p class="about">{escape(title)}: no finite value</p>'
    steps, values = [step for step, _ in finite], [value for _, value in finite]
    top = _top(values)
    across, up = _ticks(min(0, *steps), max(steps)), _ticks(min(values), top)
    low_x, high_x = min(across[0], min(steps)), max(across[-1], max(steps))
    low_y, high_y = min(up[0], min(values)), max(up[-1], top)

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (step - low_x) / (high_x - low_x or 1)
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low_y) / (high_y - low_y or 1)
        return round(x, 1), round(y, 1)

    grid = [_horizontal(place(low_x, tick)[1], _spell(tick, up)) for tick in up]
    grid += [_tick_below(place(tick, low_y)[0], _spell(tick, across)) for tick in across]
    drawn = "".join(_draw_line(line, place) for line in lines)
    frame = (LEFT, TOP - 4, WIDTH - LEFT, HEIGHT - TOP - BOTTOM + 8)  # an inner svg cuts off what is outside of it
    inside = '<svg x="{0}" y="{1}" width="{2}" height="{3}" viewBox="{0} {1} {2} {3}">'.format(*frame)
    told = f"a line goes up to {max(values):.4g}" if max(values) > high_y else ""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{''.join(grid)}{inside}{drawn}</svg>"
        f'<text class="unit" x="{WIDTH - RIGHT}" y="{TOP + 14}" text-anchor="end">{told}</text>'
        f'<text class="unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 2}" text-anchor="end">step</text></svg>'
    )


def style_of(series: int) -> str:
    """CSS classes of a series: its colour, and dashes where colours begin again."""
    dashed = " dashed" if series >= NUM_COLOURS else ""
    return f"line-{series % NUM_COLOURS}{dashed}"


def _draw_line(line: Line, place: Place) -> str:
    every = max(1, math.ceil(len(line.points) / MOST_POINTS))
    kept = [point for number, point in enumerate(line.points) if number % every == 0 or number == len(line.points) - 1]
    pieces: list[list[tuple[float, float]]] = [[]]
    for step, value in kept:
        if math.isfinite(value):
            pieces[-1].append(place(step, value))
        elif pieces[-1]:
            pieces.append([])
    drawn = []
    for piece in filter(None, pieces):
        dots = "".join(f'<circle cx="{x}" cy="{y}" r="2.5"/>' for x, y in piece) if len(kept) <= 20 else ""
        drawn.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in piece)}"/>{dots}')
    last = next((value for _, value in reversed(line.points) if math.isfinite(value)), math.nan)
    told = escape(f"{line.label}: {last:.4g}")
    return f'<g class="line {style_of(line.series)}"><title>{told}</title>{"".join(drawn)}</g>'


def _top(values: Sequence[float]) -> float:
    """The highest value, or where few values tower above all others a little more than those have."""
    low, common, high = min(values), sorted(values)[int(COMMON_SHARE * (len(values) - 1))], max(values)
    return low + 1.5 * (common - low) if low < common and high - low > TALLEST * (common - low) else high


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers around [low, high]."""
    span = high - low or abs(high) or 1.0
    size = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= MOST_TICKS)
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    return [number * step for number in range(first, last + 1)]


def _spell(tick: float, ticks: list[float]) -> str:
    """With as many digits as tell neighbours apart."""
    gap = ticks[1] - ticks[0]
    if abs(tick) >= 1e6 or gap < 1e-4:
        return f"{tick:.3g}"
    return f"{tick:.{max(0, -math.floor(math.log10(gap) + 1e-9))}f}"


def _horizontal(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>'
    )


def _tick_below(x: float, label: str) -> str:
    return f'<text class="tick" x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{label}</text>'
