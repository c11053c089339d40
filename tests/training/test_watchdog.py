"""Ranks that hang end themselves, or each other, and say where; what is slow and alive is left alone.

Without torch, so that it is quick; `vlmtrain faults --only F32` does the same to a training.
"""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from vlmtrain.training.heartbeat import Beat, Heartbeats
from vlmtrain.training.stops import HUNG
from vlmtrain.training.watchdog import Patience, Watchdog, _ask_for_stacks

ROOT = Path(__file__).resolve().parents[2]
HEAD = """
    import os, re, sys, time
    from pathlib import Path
    from vlmtrain.training.watchdog import Patience, Watchdog
    patience = Patience(least=1.0, factor=2.0, first={"step": 1.0, "save": 30.0, "writing": 30.0})
    count = 0
    def look(rank): return Watchdog(Path("ranks"), rank, 2, patience, lambda: count)
"""
HANGS = {
    "sleep": "time.sleep(60)",
    "endless loop": "while True: pass",
    "the interpreter's lock": "re.match(r'(a?){40}a{40}', 'a' * 40)",
}


def start(folder: Path, code: str) -> subprocess.Popen[str]:
    script = textwrap.dedent(HEAD) + textwrap.dedent(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("hang", HANGS)
def test_a_process_alone_that_hangs_ends_itself_and_leaves_its_stacks(hang: str, tmp_path: Path) -> None:
    body = f"""
    def stuck():
        {HANGS[hang]}
    with look(0) as watch:
        watch.start_stage("language")
        watch.enter("step", 17, ["sample-a", "sample-b"])
        stuck()
    """
    process = start(tmp_path, body)
    _, said = process.communicate(timeout=180)
    stacks = (tmp_path / "ranks/rank0.stacks.log").read_text()
    assert "in stuck" in stacks
    if hang == "the interpreter's lock":  # nothing of it could run, only the kernel's timer
        assert process.returncode == -signal.SIGPROF
        return
    assert process.returncode == HUNG
    assert "rank 0 has not gone on for" in said and "in stuck" in said
    assert "stage language, phase step, step 17, samples sample-a, sample-b" in said


def test_the_rank_that_waits_names_the_one_that_was_stopped(tmp_path: Path) -> None:
    """Rank 1 is stopped before an operation that rank 0 waits in; its stacks are had by waking it."""
    stopped = start(
        tmp_path,
        """
        def stuck(): time.sleep(60)
        with look(1) as watch:
            watch.enter("step", 4, ["late"])
            Path("ready").touch()
            stuck()
        """,
    )
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    os.kill(stopped.pid, signal.SIGSTOP)
    waiting = start(tmp_path, "count = 1\nwith look(0) as watch:\n    watch.enter('step', 4)\n    time.sleep(60)\n")
    _, said = waiting.communicate(timeout=180)
    stopped.kill()
    stopped.communicate()
    assert waiting.returncode == HUNG
    assert f"it waits for rank 1 (process {stopped.pid} on" in said
    assert "stopped): phase step, step 4, samples late" in said
    assert "stacks of rank 1" in said and "in stuck" in said
    assert (tmp_path / "ranks/rank0.hung.log").read_text() == said


def test_what_is_slow_and_alive_is_left_alone(tmp_path: Path) -> None:
    """Steps that vary, a save longer than any limit learned, a phase without limit, a process that is stopped; and a
    thread whose writing was never waited for, but is known to take long."""
    body = """
    with look(0) as watch:
        for step in range(4):
            watch.enter("step", step)
            time.sleep(0.4)
        watch.enter("step", 4)
        time.sleep(0.7)
        with watch.during("save"):
            time.sleep(2.5)
        for seconds in (0, 0, 0, 2.5):
            with watch.during("writing"):
                time.sleep(seconds)
                watch.learn("writing", 2.0)
        watch.enter("report")
        time.sleep(1.5)
    Path("done").touch()
    """
    process = start(tmp_path, body)
    time.sleep(2)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(6)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=180) == 0 and (tmp_path / "done").exists()


def test_limits_are_learned_from_the_longest_of_each_phase() -> None:
    patience = Patience(least=60, factor=10, first={"step": 1800.0, "save": None})
    assert patience.limit("step", None) == 1800
    assert patience.limit("step", 0.2) == 60 and patience.limit("step", 9) == 90
    assert patience.limit("save", 3) is None and patience.limit("report", 3) is None


def test_another_stage_learns_anew(tmp_path: Path) -> None:
    with Watchdog(tmp_path, 0, 1, Patience(first={"step": 5.0})) as watch:
        for step in range(3):
            assert ("step" in watch._longest) == (step == 2)  # the first is no measure: it may compile
            watch.enter("step", step)
            watch.enter("batch", step + 1)
        watch.start_stage("next")
        watch.enter("step", 0)
        watch.enter("batch", 1)
        assert not watch._longest


def test_beats_of_an_earlier_start_are_not_believed(tmp_path: Path) -> None:
    Heartbeats(tmp_path, 1, 3).write(Beat(1, step=9))
    os.utime(tmp_path / "rank1.json", (time.time() - 1000, time.time() - 1000))
    beats = Heartbeats(tmp_path, 0, 3)
    assert beats.others() == []
    Heartbeats(tmp_path, 1, 3).write(Beat(1, step=2, samples=("a",) * 20))
    (other,) = beats.others()
    assert other.step == 2 and len(other.samples) == 8 and other.pid == os.getpid()
    (tmp_path / "rank2.json").write_text("{half of a li")
    Heartbeats(tmp_path, 3, 4).write(Beat(3))  # of a start with more ranks, a moment ago
    assert len(beats.others()) == 1


def test_a_process_that_has_the_number_of_a_rank_is_not_hit() -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    beat = Beat(1, host=socket.gethostname(), pid=other.pid, started=1)
    assert _ask_for_stacks(beat) == ", gone"
    other.communicate(b"\n")
    assert other.returncode == 0
