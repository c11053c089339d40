"""A comparison as one HTML page that needs no other file, no script and no network: table, curves, every figure."""

from html import escape

from vlmtrain.report.comparison import Comparison, Entry
from vlmtrain.report.comparison_table import MOST_METRICS, describe_order, spell_key, spell_spread, spell_value
from vlmtrain.report.highlights import format_metric
from vlmtrain.report.line_chart import Line, draw_chart, style_of
from vlmtrain.report.page_style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
MOST_CHARTS = 12
ABOUT_CURVES = "One line per run, in the colours of the table; point at a line to see its name and its last value."
BEST, FAILED, RIGHT = ' class="best"', ' class="failed"', ' class="figure-cell"'
CHART_STYLE = """
:root { --line-0: #2f6fb5; --line-1: #c8402f; --line-2: #1f8a57; --line-3: #9a6a00; --line-4: #7a4fb0;
  --line-5: #0f8a96; --line-6: #b8407f; --line-7: #5d6470; }
@media (prefers-color-scheme: dark) { :root { --line-0: #7db4ee; --line-1: #f08a7b; --line-2: #5fc795;
  --line-3: #e0b354; --line-4: #b99af0; --line-5: #5cc6d0; --line-6: #ee8fc0; --line-7: #aab1bd; } }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--edge); border-radius: 14px; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { padding: 9px 14px; text-align: left; border-bottom: 1px solid var(--edge); white-space: nowrap;
  vertical-align: top; }
th { color: var(--grey); font-weight: 600; }
tr:last-child td { border-bottom: 0; }
td.figure-cell { font-variant-numeric: tabular-nums; text-align: right; }
th.figure-cell { text-align: right; }
th { white-space: normal; vertical-align: bottom; }
.reason { display: block; white-space: normal; min-width: 180px; max-width: 340px; overflow-wrap: anywhere;
  color: var(--grey); font-size: 0.86rem; }
tr.failed .reason { color: var(--red); }
tr.best td { background: var(--green-soft); }
.swatch { display: inline-block; width: 22px; height: 0; border-top: 3px solid currentColor; margin-right: 9px;
  vertical-align: middle; }
.swatch.dashed { border-top-style: dashed; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 20px; }
.chart { background: var(--card); border: 1px solid var(--edge); border-radius: 16px; padding: 16px 18px 10px;
  margin: 0; }
.chart figcaption { font-weight: 600; margin-bottom: 6px; overflow-wrap: anywhere; }
.chart > svg { width: 100%; height: auto; display: block; overflow: visible; }
.grid { stroke: var(--edge); stroke-width: 1; }
.tick, .unit { fill: var(--grey); font-size: 12px; }
.line polyline { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.line circle { fill: currentColor; }
.line:hover polyline { stroke-width: 4; }
.line.dashed polyline { stroke-dasharray: 7 4; }
""" + "".join(f".line-{number} {{ color: var(--line-{number}); }}\n" for number in range(8))


def render_comparison(comparison: Comparison, title: str, command: str = "") -> str:
    """The page as HTML; every text is escaped, and its policy forbids scripts and foreign content."""
    figures = comparison.metrics
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}{CHART_STYLE}</style>\n</head>\n<body>\n<main>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="lead">{escape(describe_order(comparison))}</p>',
            f"<pre>{escape(command)}</pre>" if command else "",
            _section("Runs", _count(comparison), _leaderboard(comparison)),
            _section("Curves", ABOUT_CURVES, _charts(comparison)),
            _section("Every figure", "At the end of training, all splits.", _figures(comparison)) if figures else "",
            "</main>\n</body>\n</html>\n",
        ]
    )


def _section(heading: str, about: str, body: str) -> str:
    return f'<section>\n<h2>{escape(heading)}</h2>\n<p class="about">{escape(about)}</p>\n{body}\n</section>'


def _count(comparison: Comparison) -> str:
    states = [state for entry in comparison.entries for state in entry.states]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _leaderboard(comparison: Comparison) -> str:
    metrics = list(comparison.headline)[:MOST_METRICS]
    has_seeds = any(len(entry.seeds) > 1 for entry in comparison.entries)
    heading = [_th("run"), _th("state"), _th("seeds", True) if has_seeds else ""]
    heading += [*(_th(name, True) for name in metrics), *(_th(spell_key(key), True) for key in comparison.keys)]
    rows = [f"<tr>{''.join(heading)}</tr>"]
    for number, entry in enumerate(comparison.entries):
        cells = [_name(entry, number), _state(entry)]
        cells += [_figure(str(len(entry.seeds)))] if has_seeds else []
        cells += [_figure(spell_spread(name, entry.metrics.get(name))) for name in metrics]
        cells += [_figure(spell_value(entry.settings[key])) for key in comparison.keys]
        is_best = number == 0 and comparison.by is not None and entry.is_done
        kind = BEST if is_best else FAILED if "failed" in entry.states else ""
        rows.append(f"<tr{kind}>{''.join(cells)}</tr>")
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _charts(comparison: Comparison) -> str:
    charts = []
    for name in comparison.curves[:MOST_CHARTS]:
        lines = [
            Line(entry.name if len(curves) == 1 else f"{entry.name}, seed {seed}", number, curve)
            for number, entry in enumerate(comparison.entries)
            for curves in [entry.curves.get(name, ())]
            for seed, curve in zip(entry.seeds, curves, strict=False)
        ]
        charts.append(
            f'<figure class="chart"><figcaption>{escape(name)}</figcaption>{draw_chart(lines, name)}</figure>'
        )
    return f'<div class="charts">{"".join(charts)}</div>' if charts else '<p class="about">No run has a curve yet.</p>'


def _figures(comparison: Comparison) -> str:
    heading = [_th("metric"), *(_th(entry.name, True) for entry in comparison.entries)]
    rows = [f"<tr>{''.join(heading)}</tr>"]
    for name in comparison.metrics:
        spreads = [entry.metrics.get(name) for entry in comparison.entries]
        cells = "".join(_figure(spell_spread(name, spread)) for spread in spreads)
        several = [format_metric(name, value) for spread in spreads if spread for value in spread.values]
        title = escape(", ".join(several[:20]))
        rows.append(f'<tr><td title="{title}">{escape(name)}</td>{cells}</tr>')
    return f'<div class="wide"><table>{"".join(rows)}</table></div>'


def _name(entry: Entry, number: int) -> str:
    dashed = " dashed" if "dashed" in style_of(number) else ""
    swatch = f'<span class="{style_of(number).split()[0]}"><span class="swatch{dashed}"></span></span>'
    return f'<td title="{escape(", ".join(entry.folders))}">{swatch}{escape(entry.name)}</td>'


def _state(entry: Entry) -> str:
    reason = f'<span class="reason">{escape(entry.reason)}</span>' if entry.reason and not entry.is_done else ""
    return f"<td>{escape(entry.state)}{reason}</td>"


def _figure(text: str) -> str:
    return f"<td{RIGHT}>{escape(text)}</td>"


def _th(text: str, is_figure: bool = False) -> str:
    return f"<th{RIGHT if is_figure else ''}>{escape(text).replace('/', '/<wbr>')}</th>"
