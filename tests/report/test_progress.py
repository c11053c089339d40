import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vlmtrain.report.progress import (
    Clock,
    LineProgress,
    SilentProgress,
    StepReport,
    TerminalProgress,
    choose_progress,
    describe,
    format_duration,
)

REPORT = StepReport(440, 1.2345, {"contrastive": 0.5, "matching": 0.2}, 812.3, 0.021)


def make_console(**options) -> Console:
    return Console(file=io.StringIO(), **options)


def test_a_line_holds_everything():
    assert describe(REPORT, 900, 83) == (
        "440/900 · 1:23 left · loss 1.234 (contrastive 0.500, matching 0.200) · 812 samples/s · data 2 %"
    )
    assert describe(StepReport(1, float("nan"), {"a": 1.0}, skipped=2), 9, None) == (
        "1/9 · loss nan · 0 samples/s · data 0 % · 2 skipped"
    )


@given(st.integers(60, 200))
def test_a_narrow_terminal_gets_what_fits(width):
    line = describe(REPORT, 900, 83, width)
    assert len(line) <= width
    assert ("cont" in line) == (
        width >= len("440/900 · 1:23 left · loss 1.234 (cont 0.50 matc 0.20) · 812/s · data 2 %")
    )


def test_lines_come_once_per_interval_and_at_the_end():
    now = [0.0]
    console = make_console(width=40)
    progress = LineProgress(console, interval=10.0, now=lambda: now[0])
    progress.start_stage("language", "2/2", 0, 100)
    for step in range(1, 101):
        now[0] += 1.0
        progress.update(StepReport(step, 1.0))
    progress.end_stage()
    lines = console.file.getvalue().splitlines()
    assert [line.split(" · ")[1] for line in lines] == [f"{step}/100" for step in (*range(1, 100, 10), 100)]
    assert lines[1].split(" · ")[2] == "1:29 left"


def test_a_terminal_gets_one_line_and_the_stage_can_be_ended_twice():
    console = make_console(width=140, force_terminal=True)
    progress = TerminalProgress(console)
    progress.update(REPORT)
    progress.start_stage("language", "2/2", 300, 900)
    progress.update(REPORT)
    progress.end_stage()
    progress.end_stage()
    assert "contrastive 0.500" in console.file.getvalue()


def test_the_pace_of_a_resumed_stage_is_that_of_this_process():
    now = [100.0]
    clock = Clock(300, 900, lambda: now[0])
    assert clock.seconds_left(300) is None
    now[0] += 60
    assert clock.seconds_left(400) == pytest.approx(300.0)


def test_the_choice_depends_on_where_the_output_goes():
    assert isinstance(choose_progress(make_console(force_terminal=True), True), TerminalProgress)
    assert isinstance(choose_progress(make_console(), True), LineProgress)
    silent = choose_progress(make_console(force_terminal=True), False)
    assert isinstance(silent, SilentProgress)
    silent.start_stage("a", "1/1", 0, 1)
    silent.update(REPORT)
    silent.end_stage()


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03"), (273_600, "3 d 4 h")]
)
def test_durations(seconds, told):
    assert format_duration(seconds) == told
