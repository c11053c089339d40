"""Signals set a flag and nothing else; the trainer reads it between two steps."""

import logging
import os
import signal
import time
from types import FrameType
from typing import Any, Self

logger = logging.getLogger(__name__)

CAUGHT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
IMPATIENCE_SECONDS = 10.0
_early: list[int] = []


def remember_early_signals() -> None:
    """From now on SIGTERM and SIGUSR1 wait for the next `Signals` block, which begins as one that was asked to end.

    For processes that a scheduler may signal while they still import: by default such a signal kills.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda received, frame: _early.append(received))


class Signals:
    """In a `with` block SIGTERM, SIGUSR1 and SIGINT ask for an orderly end; a second one within 10 s ends at once.

    Forked workers inherit the handler and ignore the signal: their parent decides.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        self._time = 0.0
        self._owner = os.getpid()
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._owner = os.getpid()
        self._previous = {number: signal.signal(number, self._handle) for number in CAUGHT}
        if _early:
            self.requested, self._time = _early.pop(), time.monotonic()
            _early.clear()
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        now = time.monotonic()
        if self.requested is not None and now - self._time < IMPATIENCE_SECONDS:
            os._exit(128 + number)
        self.requested, self._time = number, now
