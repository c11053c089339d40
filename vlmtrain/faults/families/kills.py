"""kill -9, at any moment: the same command again, and nothing is lost."""

import os
import signal
import time

from vlmtrain.faults.bench import Bench, Run
from vlmtrain.faults.injection import Injection
from vlmtrain.faults.row import Case, Row

GONE_SECONDS = 5.0  # within which the other ranks have to end
MOST_KILLS = 3


def one_process(bench: Bench) -> list[Case]:
    """One to three kills at moments spread evenly over the run, then it is left to finish."""
    _, seconds = bench.reference()

    def attempt() -> None:
        folder = bench.folder()
        for _ in range(bench.chance.randint(1, MOST_KILLS)):
            run = bench.start(folder)
            time.sleep(bench.chance.uniform(0, seconds))
            run.kill()
        bench.finish_as_undisturbed(folder)

    return [Case(f"try {number}", attempt) for number in range(bench.times(8, 50))]


def one_of_two(bench: Bench) -> list[Case]:
    """A random rank is killed, or raises; the launcher has to end the other, and to blame the right one."""
    _, seconds = bench.reference(2)

    def killed() -> None:
        folder = bench.folder()
        for _ in range(bench.chance.randint(1, MOST_KILLS)):
            run, moment = bench.start(folder, 2), bench.chance.uniform(0, seconds)
            run.wait_until_all_have_begun(2)
            time.sleep(max(0.0, moment - (time.monotonic() - run.began)))
            kill_a_rank(bench, run)
        bench.finish_as_undisturbed(folder, 2)

    def raises() -> None:
        run = bench.start(bench.folder(), 2, (), Injection("forward", "fail", 9, 9))
        code, said = run.wait(), run.said()
        assert code == 1 and not run.ranks(), f"exit code {code}"
        assert "rank 1 failed first: RuntimeError: made up by the fault harness" in said, said[-500:]
        bench.finish_as_undisturbed(run.folder, 2)

    kills = [Case(f"killed, try {number}", killed) for number in range(bench.times(6, 50))]
    return [*kills, Case("an exception", raises)]


def kill_a_rank(bench: Bench, run: Run) -> None:
    """SIGKILL to one rank; waits until all have gone."""
    ranks = run.ranks()
    if not ranks:
        run.wait()  # it was done before
        return
    os.kill(bench.chance.choice(ranks), signal.SIGKILL)
    began = time.monotonic()
    run.wait_until_gone()
    took = time.monotonic() - began
    assert run.wait() != 0, "a run whose rank was killed ended with 0"
    assert took < GONE_SECONDS, f"the others were gone after {took:.1f} s, wanted {GONE_SECONDS}"


ROWS = (
    Row(
        "F01",
        5,
        "kill -9 at a random moment",
        "weights, moments, samples, figures to the bit; nobody helps",
        one_process,
    ),
    Row(
        "F02",
        5,
        "kill -9 of one of two ranks, or an exception",
        "the other gone in 5 s, the right one blamed; then as F01",
        one_of_two,
    ),
)
