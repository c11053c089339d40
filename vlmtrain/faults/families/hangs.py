"""Ranks that go on no more, and ranks that are only slow."""

import time
from functools import partial

from vlmtrain.faults.bench import Bench
from vlmtrain.faults.injection import Injection
from vlmtrain.faults.row import Case, Row
from vlmtrain.training.stops import HUNG

STEP, SECONDS, SOON = 8, 6.0, 10.0
WATCHED = (f"distributed.hang_seconds={SECONDS}", "distributed.hang_factor=1")
HANGS = {"stopped": "stop", "asleep": "sleep", "in an endless loop": "loop", "holding the lock": "hold_the_lock"}


def hangs(bench: Bench) -> list[Case]:
    """Rank 1 hangs before a collective, in each way; then two runs that only look like it."""

    def hang(deed: str) -> None:
        fault = Injection("forward", deed, STEP, STEP, value=3600)
        run = bench.start(bench.folder(), 2, WATCHED, fault)
        run.wait_for_step(STEP, rank=1)
        began = time.monotonic()
        run.wait_for(lambda: run.process.exitcode is not None, patience=120)
        took, left, said = time.monotonic() - began, run.ranks(), run.said()
        code = run.wait()
        assert code == HUNG, f"exit code {code}, not {HUNG}: {said[-400:]}"
        assert not left, "a rank is still there"
        assert took < SECONDS + SOON, f"gone after {took:.1f} s, wanted {SECONDS + SOON}"
        for told in ("rank 1", "phase step", f"step {STEP}", "samples ", f"in {deed if deed != 'stop' else 'strike'}"):
            assert told in said, f"the report does not say {told!r}: {said[-1500:]}"
        bench.finish_as_undisturbed(run.folder, 2)

    def slow_but_alive() -> None:
        slow = Injection("forward", "sleep", 0, 10**6, value=0.1)
        folder = bench.folder()
        steps = (f"trainer.max_steps={200 if bench.is_full else 24}", *WATCHED)
        code = bench.start(folder, 2, steps, slow).wait()
        assert code == 0, f"exit code {code}: a run that was only slow was ended"

    def long_save() -> None:
        slow = Injection("save", "sleep", 5, 5, rank=0, value=60.0 if bench.is_full else 2 * SECONDS)
        code = bench.start(bench.folder(), 2, WATCHED, slow).wait()
        assert code == 0, f"exit code {code}: a run that was saving was ended"

    each = [Case(name, partial(hang, deed)) for name, deed in HANGS.items()] * bench.times(1, 5)
    return [*each, Case("slow but alive", slow_but_alive), Case("a long save", long_save)]


ROWS = (
    Row(
        "F32",
        3,
        "a rank hangs: stopped, asleep, looping, holding the interpreter's lock",
        "all gone within the limit + 10 s; rank, phase, step, samples, stack told; resumes to the bit; no false alarm",
        hangs,
    ),
)
