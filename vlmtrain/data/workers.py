"""Runs a data set in worker processes that may be killed without harm."""

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

logger = logging.getLogger(__name__)

Place = tuple[int, int]
Item = TypeVar("Item")

_PREFETCHED_PER_WORKER = 2
_MAX_DEATHS_IN_A_ROW = 3
_GRACE = 120  # seconds a worker that was told to end goes on, so that the step and its checkpoint can be finished


@dataclass(frozen=True)
class _Failure:
    """An error of a worker on its way to the main process."""

    kind: type[Exception]
    message: str


class _Reporting(Dataset[Any]):
    """`read` as workers run it: errors travel as values, so that whatever else goes wrong is the worker's own death."""

    def __init__(self, read: Callable[[Place], Any]) -> None:
        self.read = read

    def __getitem__(self, place: Place) -> Any:
        try:
            return self.read(place)
        except OSError as error:
            return _Failure(OSError, str(error))
        except ValueError as error:
            return _Failure(ValueError, str(error))
        except Exception:
            return _Failure(RuntimeError, f"a data worker failed at {place}:\n{traceback.format_exc()}")


class WorkerPool(Generic[Item]):
    """Items of `read`, for places in order, from `num_workers` processes (0: from this one).

    A worker that is killed, by the out-of-memory killer for one, is noticed within seconds; all workers are then
    started anew at the place that was reached.  Three deaths without progress stop the run.
    """

    def __init__(self, read: Callable[[Place], Item], num_workers: int, start_method: str) -> None:
        self.read = read
        self.num_workers = num_workers
        self.start_method = start_method

    def items(self, num_items: int, place: Callable[[int], Place]) -> Iterator[Item]:
        """The items at `place(0)` to `place(num_items - 1)`."""
        if self.num_workers == 0:
            yield from (self.read(place(number)) for number in range(num_items))
            return
        done = deaths = 0
        while done < num_items:
            loader = iter(self._loader(place(number) for number in range(done, num_items)))
            while done < num_items:
                try:
                    item = next(loader)
                except (RuntimeError, OSError, EOFError) as error:
                    deaths += 1
                    self._note_death(deaths, place(done), error)
                    break
                if isinstance(item, _Failure):
                    raise item.kind(item.message)
                done, deaths = done + 1, 0
                yield item
            del loader

    def _loader(self, places: Iterator[Place]) -> DataLoader[Any]:
        context = multiprocessing.get_context(self.start_method)
        if self.start_method == "forkserver":
            context.set_forkserver_preload(["torch", __name__])
        return DataLoader(
            _Reporting(self.read),
            batch_size=None,
            sampler=places,  # type: ignore[arg-type]  # any iterable will do
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=_become_worker,
            prefetch_factor=_PREFETCHED_PER_WORKER,
            multiprocessing_context=context,
        )

    def _note_death(self, deaths: int, place: Place, error: Exception) -> None:
        step, number = place
        what = f"a data worker died before micro-batch {number} of step {step} was delivered: {error}"
        if deaths >= _MAX_DEATHS_IN_A_ROW:
            raise RuntimeError(
                f"{what} This is the {deaths}rd time in a row. If the machine ran out of memory, lower num_workers "
                f"(now {self.num_workers}); num_workers=0 shows the error itself. Nothing of the run is lost."
            ) from error
        logger.warning("%s Starting the %d workers anew.", what, self.num_workers)


def _as_it_is(item: Any) -> Any:
    return item


def _become_worker(worker: int) -> None:
    """Signals are for the main process, which lets its workers end; one thread each, as there are many."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    """A main process that is killed leaves a fork server, which keeps workers waiting for ever: so they watch."""
    main = multiprocessing.parent_process()
    if main is not None:
        connection.wait([main.sentinel])
        os._exit(1)


def _end_later(number: int, frame: FrameType | None) -> None:
    """Go on for as long as the main process may need; the alarm ends a worker that nobody ends."""
    signal.alarm(_GRACE)
