"""Data of several sources in fixed proportions."""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate
from typing import Any

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.weighted import Weighted


class Named:
    """The records of `source`, which say by `origin` and by their key that they are of `name`."""

    def __init__(self, source: Source, name: str) -> None:
        self.source = source
        self.origin = name
        self.name = f"{name}: {source.name}"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.origin}\x1f{self.source.fingerprint}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.source)

    def key(self, index: int) -> str:
        return f"{self.origin}:{self.source.key(index)}"

    def read(self, index: int) -> Record:
        try:
            record = self.source.read(index)
        except BrokenSample as error:
            raise BrokenSample(f"{self.origin}:{error.key}", error.reason) from None
        return replace(record, key=f"{self.origin}:{record.key}", origin=self.origin)


class MixedSource:
    """`sources` one behind the other, each as often as its share of the samples asks for.

    The source that is scarcest for its share is there once, the others are repeated, each record as often as any other
    of its source or once more.  The order of training is drawn over all of it, so that every epoch holds the shares
    exactly, and every record of every source.
    """

    def __init__(self, sources: Mapping[str, Source], shares: Mapping[str, float]) -> None:
        self._sources = list(sources.values())
        total = max(len(source) / shares[name] for name, source in sources.items())
        self.counts = {
            name: max(len(source), math.floor(shares[name] * total + 0.5)) for name, source in sources.items()
        }
        self._ends = list(accumulate(self.counts.values()))
        self.name = ", ".join(f"{count} of {name}" for name, count in self.counts.items())

    @property
    def fingerprint(self) -> str:
        parts = [source.fingerprint for source in self._sources] + [str(end) for end in self._ends]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()

    def __len__(self) -> int:
        return self._ends[-1]

    def key(self, index: int) -> str:
        source, place = self.locate(index)
        return self._sources[source].key(place)

    def read(self, index: int) -> Record:
        source, place = self.locate(index)
        return self._sources[source].read(place)

    def locate(self, index: int) -> tuple[int, int]:
        """(source, index in it) of a sample."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: there is no sample {index}")
        source = bisect_right(self._ends, index)
        first = self._ends[source - 1] if source else 0
        return source, (index - first) % len(self._sources[source])


class Mixed:
    """Several data as one: `parts` by name, the share of each in the samples of training, and perhaps its weight in
    the loss (1 where none is named).

    Records carry their part's name, by which the form `ByOrigin` gives each its own.  Evaluation splits are those of
    the parts, as `<part>_<split>`.
    """

    together = 1

    def __init__(
        self, parts: dict[str, Any], shares: dict[str, float], weights: dict[str, float] | None = None
    ) -> None:
        weights = weights or {}
        if not parts or set(parts) != set(shares):
            raise ValueError(f"parts {', '.join(parts) or 'none'} and shares of {', '.join(shares)} must be the same")
        if not set(weights) <= set(parts):
            raise ValueError(f"weights of {', '.join(weights)} must be of the parts {', '.join(parts)}")
        wrong = {name: share for name, share in shares.items() if not share > 0}
        grouped = [name for name, part in parts.items() if part.together != 1]
        if wrong or grouped:
            raise ValueError(
                f"shares must be above 0, these are not: {wrong}; leave such parts out"
                if wrong
                else f"{', '.join(grouped)} has samples that must come together and cannot be mixed"
            )
        self.origins = list(parts)
        sources = {name: Weighted(Named(part.train, name), weights.get(name, 1.0)) for name, part in parts.items()}
        self.train: Source = MixedSource(sources, shares)
        self.evaluation: dict[str, Source] = {
            f"{name}_{split}": Named(source, name)
            for name, part in parts.items()
            for split, source in part.evaluation.items()
        }
