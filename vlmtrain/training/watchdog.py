"""Ends a rank that goes on no more, after it has said where it stands: one that hangs costs as much as one that trains.

A thread looks every second whether the present phase takes far longer than it ever did.  If so it prints all stacks,
names the rank that is behind, and leaves by os._exit: no orderly way leads through collectives that never end.  What
no thread can see, because the interpreter's lock is held, a timer of the kernel sees: it dumps the stacks and kills.
"""

import ctypes
import faulthandler
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from vlmtrain.training.heartbeat import Beat, Heartbeats, state_of
from vlmtrain.training.stops import HUNG

POLL_SECONDS = 1.0
SUSPENDED_SECONDS = 4.0  # a look that comes so much too late: the process was stopped, and time did not count
DUMP, LAST_RESORT = signal.SIGUSR2, signal.SIGPROF
SECONDS_FOR_OTHERS = 1.0  # until the stacks of a rank that was asked for them are in its file
SECONDS_TO_TELL = 8.0  # even where the disk hangs as well


@dataclass(frozen=True)
class Patience:
    """How long a phase may take: `factor` times its longest so far, at least `least` seconds.

    `first`: phase -> seconds until it has been seen twice; null, or a phase that is not named: no limit.
    """

    least: float = 60.0
    factor: float = 10.0
    first: Mapping[str, float | None] | None = None

    def limit(self, phase: str, longest: float | None) -> float | None:
        first = (self.first or {}).get(phase)
        if first is None or longest is None:
            return first
        return max(self.least, self.factor * longest)


class Watch:
    """Told by training what it does; this one does not look."""

    def start_stage(self, name: str) -> None:
        """What was learned of another stage does not hold for this one."""

    def enter(self, phase: str, step: int = 0, samples: Sequence[str] = ()) -> None:
        """From now on: `phase` of `step`, on these samples."""

    def learn(self, phase: str, seconds: float) -> None:
        """What `phase` waits for took so long, where part of that passed before the waiting began."""

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase within another; afterwards the other begins anew."""
        yield


class Watchdog(Watch):
    """Looks after this process in a `with` block.  `folder`: where all ranks write how far they are.

    `count_collectives`: how many operations with all ranks this one has begun.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        world_size: int,
        patience: Patience,
        count_collectives: Callable[[], int] = lambda: 0,
        threads: int = 1,
    ) -> None:
        self.patience = patience
        self.threads = threads  # that may compute at once: what processor time is measured in
        self.poll = min(POLL_SECONDS, patience.least / 4)
        self._beats = Heartbeats(folder, rank, world_size)
        self._count_collectives = count_collectives
        self._beat = Beat(rank)
        self._seen: set[str] = set()
        self._longest: dict[str, float] = {}
        self._since = self._looked = time.monotonic()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._stacks = self._beats.stack_file(rank).open("wb")
        self._thread = threading.Thread(target=self._look_again_and_again, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        faulthandler.register(DUMP, file=self._stacks, all_threads=True)
        faulthandler.register(LAST_RESORT, file=self._stacks, all_threads=True, chain=True)
        self._beats.write(self._beat)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._closed.set()
        self._thread.join()
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.unregister(LAST_RESORT)
        faulthandler.unregister(DUMP)
        self._beats.close()
        self._stacks.close()

    def start_stage(self, name: str) -> None:
        with self._lock:
            self._seen.clear()
            self._longest.clear()
            self._begin(replace(self._beat, stage=name, phase="init", step=0, samples=()))

    def enter(self, phase: str, step: int = 0, samples: Sequence[str] = ()) -> None:
        with self._lock:
            self._learn()
            self._begin(replace(self._beat, phase=phase, step=step, samples=tuple(samples)))

    def learn(self, phase: str, seconds: float) -> None:
        with self._lock:
            self._remember(phase, seconds)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        outer = self._beat
        self.enter(phase, outer.step, outer.samples)
        try:
            yield
        finally:
            self.enter(outer.phase, outer.step, outer.samples)

    def _begin(self, beat: Beat) -> None:
        self._since = time.monotonic()
        self._beat = replace(beat, collectives=self._count_collectives())
        self._beats.write(self._beat)
        self._arm(self._limit())

    def _limit(self) -> float | None:
        return self.patience.limit(self._beat.phase, self._longest.get(self._beat.phase))

    def _arm(self, seconds: float | None) -> None:
        """The last resort counts processor time of all threads: a process that was stopped is not killed when it goes
        on.  The next look winds it up again."""
        slack = 1 + 2 * self.poll * self.threads
        signal.setitimer(signal.ITIMER_PROF, 0 if seconds is None else seconds + slack)

    def _learn(self) -> None:
        """From the second time on: the first step may compile, the first batch waits for workers to start."""
        phase, took = self._beat.phase, time.monotonic() - self._since
        if phase in self._seen:
            self._remember(phase, took)
        self._seen.add(phase)

    def _remember(self, phase: str, seconds: float) -> None:
        self._longest[phase] = max(seconds, self._longest.get(phase, 0.0))

    def _look_again_and_again(self) -> None:
        while not self._closed.wait(self.poll):
            with self._lock:
                self._look(time.monotonic())

    def _look(self, now: float) -> None:
        late = now - self._looked - self.poll
        self._looked = now
        if late > SUSPENDED_SECONDS:
            self._since += late
        self._beat = replace(self._beat, collectives=self._count_collectives())
        self._beats.write(self._beat)
        limit = self._limit()
        left = None if limit is None else self._since + limit - now
        if left is not None and left <= 0:
            self._end(now - self._since)
        self._arm(left)

    def _end(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(SECONDS_TO_TELL, exit=True)
        own = self._beat
        behind = [beat for beat in self._beats.others() if beat.progress() < own.progress()]
        states = [_ask_for_stacks(beat) for beat in behind]
        faulthandler.dump_traceback(file=self._stacks, all_threads=True)
        if behind:
            time.sleep(SECONDS_FOR_OTHERS)
        told = [f"rank {own.rank} has not gone on for {seconds:.0f} s: {own.place()}"]
        told += [
            f"it waits for rank {beat.rank} (process {beat.pid} on {beat.host}{state}): {beat.place()}"
            for beat, state in zip(behind, states, strict=True)
        ]
        for rank in [beat.rank for beat in behind] or [own.rank]:
            file = self._beats.stack_file(rank)
            told.append(f"stacks of rank {rank} ({file}):\n{file.read_text(errors='replace').strip()}")
        told.append("All ranks end; the same command goes on from the newest checkpoint.  Where nothing hangs but is")
        told.append("slow, raise distributed.hang_seconds (null: nobody looks).")
        story = "".join(f"vlmtrain: {line}\n" for line in "\n".join(told).splitlines())
        os.write(2, story.encode())  # sys.stderr may be locked by the thread that hangs
        (self._beats.folder / f"rank{own.rank}.hung.log").write_text(story, encoding="utf-8")
        os._exit(HUNG)


def _ask_for_stacks(beat: Beat) -> str:
    """Dumped even where the rank is stopped or holds the interpreter's lock; gives ", stopped" where it is, else ""."""
    if beat.host != socket.gethostname():
        return ""
    state = state_of(beat.pid)
    if state is None or state.started != beat.started:
        return ", gone"
    _signal_main_thread(beat.pid, DUMP)
    os.kill(beat.pid, signal.SIGCONT)
    return ", stopped" if state.letter == "T" else ""


def _signal_main_thread(pid: int, number: int) -> None:
    """`os.kill` leaves it to the kernel which thread of a stopped process takes the signal once it goes on, and by then
    the main one may have left the place where it stood."""
    ctypes.CDLL(None, use_errno=True).tgkill(pid, pid, number)
