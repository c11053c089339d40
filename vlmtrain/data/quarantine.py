"""Broken samples are set aside, counted, and bounded."""

import json
import logging
import sys
from pathlib import Path

from vlmtrain.batch import Batch

logger = logging.getLogger(__name__)

MAX_IN_A_ROW = 100
_WINDOW = 10_000  # samples
_SHARE = 0.01
_ALWAYS_ALLOWED = 10  # so that one bad file in a folder of fifty stops nobody


class Quarantine:
    """Writes what the workers could not use to `folder`/quarantine.jsonl, each sample once, and says when to stop.

    The rule: more than 1 % of the last 10 000 samples (1 % of the data, if it is smaller; ten are always allowed unless
    they are half of the data) is a fault of the data as a whole, and training on the rest would hide it.  More than
    100 in a row stop at once, in the worker.  Different samples are counted: one that comes back in the next epoch is
    no news.
    """

    def __init__(self, folder: str | Path, num_samples: int, rank: int = 0, world_size: int = 1) -> None:
        self.file = Path(folder) / ("quarantine.jsonl" if rank == 0 else f"quarantine.rank{rank}.jsonl")
        self.window = _WINDOW if num_samples > _WINDOW else sys.maxsize  # all of small data is one window
        share = _SHARE * min(_WINDOW, num_samples) / world_size
        self.limit = min(max(_ALWAYS_ALLOWED, int(share)), max(1, num_samples // 2))
        self._positions = self._recall()

    @property
    def count(self) -> int:
        """How many different samples are in quarantine."""
        return len(self._positions)

    def add(self, batch: Batch) -> None:
        """Take in what `batch` reports.  ValueError when there is too much of it."""
        if not batch.quarantined:
            return
        self._list({entry["id"]: entry for entry in batch.quarantined if entry["id"] not in self._positions})
        newest = max(self._positions.values())
        recent = sum(position > newest - self.window for position in self._positions.values())
        if recent > self.limit:
            last = batch.quarantined[-1]
            raise ValueError(
                f"{recent} different samples of the last {_WINDOW} are broken, {self.limit} are allowed; "
                f"the last is {last['id']!r} of {last['source']}: {last['reason']}. All are listed in {self.file}: "
                "mend or remove them, delete the list, then run the same command again."
            )

    def _list(self, news: dict[str, dict[str, str]]) -> None:
        if not news:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            for name, entry in news.items():
                self._positions[name] = int(entry["position"])
                file.write(json.dumps(entry) + "\n")
                logger.warning("set aside sample %s of %s: %s", name, entry["source"], entry["reason"])

    def _recall(self) -> dict[str, int]:
        """id -> position of what an earlier part of this run found; a line torn by a kill does not count."""
        positions: dict[str, int] = {}
        if not self.file.exists():
            return positions
        text = self.file.read_text()
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            positions[entry["id"]] = int(entry["position"])
        if text and not text.endswith("\n"):
            with self.file.open("a") as file:
                file.write("\n")
        return positions
