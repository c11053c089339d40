"""One checkpoint on its way to the disk, here or in a thread."""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from vlmtrain.training.publish import Listed, seal, staging_of, write_files
from vlmtrain.training.stops import NonFiniteTraining
from vlmtrain.training.tensor_file import Content, write_durably

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0  # with the other ranks, where this one ends by an error and they may be gone


class Writing:
    """What one rank does for a checkpoint: `write` its files into the staged folder, then `publish` it, which is for
    the first rank alone.  In a thread no rank asks another one anything: each leaves a list of its files in the folder
    when they are on the disk, and the first one waits for these lists.

    Args:
        target: the folder to publish; its staged folder is there, and empty.
        facts: for the manifest.
        rank, num_writers: the first so many ranks write.
        when_published: called with `target`, in the thread.
    """

    def __init__(
        self, target: Path, facts: dict[str, Any], rank: int, num_writers: int, when_published: Callable[[Path], None]
    ) -> None:
        self.target = target
        self.error: Exception | None = None
        self._facts = facts
        self._rank = rank
        self._num_writers = num_writers
        self._when_published = when_published
        self._staging = staging_of(target)
        self._listed: Listed = {}
        self._is_written = threading.Event()
        self._is_abandoned = threading.Event()
        self._thread: threading.Thread | None = None
        self._began, self.seconds = time.monotonic(), 0.0

    def start(self, files: list[tuple[str, Content]]) -> None:
        """Write and publish in a thread; nobody else may change what is in `files`."""
        self._thread = threading.Thread(target=self._run, args=(files,), name="checkpoint", daemon=True)
        self._thread.start()

    def write(self, files: Iterable[tuple[str, Content]]) -> None:
        """Afterwards this rank's files are on the disk, or `error` says why not."""
        try:
            self._listed = write_files(self._staging, files)
            if 0 < self._rank < self._num_writers:
                self._leave_list()
        except (OSError, NonFiniteTraining) as error:
            self._fail(error)
        except BaseException:
            self._clean()
            raise
        finally:
            self._is_written.set()

    def wait_until_written(self) -> None:
        self._is_written.wait()

    def finish(self, is_wanted: bool) -> None:
        """Wait for the thread, or publish here; where some rank has failed (not `is_wanted`), take back what there is.

        All ranks have written by now.
        """
        if not is_wanted:
            self._is_abandoned.set()
        if self._thread is not None:
            self._thread.join()
        elif is_wanted and self._rank == 0:
            self._publish()
        if not is_wanted and self._rank == 0:
            self._clean()
        self.seconds = time.monotonic() - self._began if self._thread is None else self.seconds

    def leave(self) -> None:
        """Where the run ends by an error: what this rank has begun comes to an end, without asking the others."""
        if self._thread is None:
            return
        self._thread.join(None if self._num_writers == 1 else PATIENCE_SECONDS)
        self._is_abandoned.set()
        self._thread.join()

    def _run(self, files: list[tuple[str, Content]]) -> None:
        try:
            self.write(files)
            if self.error is None and self._rank == 0:
                self._publish()
        except Exception as error:  # a fault of ours; whoever waits for the thread raises it
            self.error = error
        finally:
            self.seconds = time.monotonic() - self._began

    def _publish(self) -> None:
        try:
            for rank in range(1, self._num_writers):
                if not self._wait_for_list(rank):
                    return
                self._listed |= json.loads(self._list_of(rank).read_bytes())
                self._list_of(rank).unlink()
            seal(self._staging, self.target, self._listed, self._facts)
            self._when_published(self.target)
        except OSError as error:
            self._fail(error)

    def _wait_for_list(self, rank: int) -> bool:
        """False where it will never come."""
        while not self._list_of(rank).exists():
            if self._is_abandoned.wait(POLL_SECONDS):
                return False
        return True

    def _leave_list(self) -> None:
        path = self._list_of(self._rank)
        draft = path.with_suffix(".draft")
        write_durably(draft, json.dumps(self._listed).encode())
        os.rename(draft, path)

    def _list_of(self, rank: int) -> Path:
        return self._staging / f".files-of-rank-{rank}.json"

    def _fail(self, error: OSError | NonFiniteTraining) -> None:
        self.error = error
        if isinstance(error, OSError):
            logger.warning("checkpoint %s could not be written: %s; training goes on", self.target.name, error)
        if self._num_writers == 1:  # else the others may be writing still
            self._clean()

    def _clean(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
