"""Captions that are wrong by as little as possible."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Protocol

from vlmtrain.data.scenes.judging import judge
from vlmtrain.data.scenes.things import COLOURS, Scene


class _RecordWithScene(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def captions(self) -> Sequence[str]: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


class SwappedColours:
    """The first caption with the colours of two things exchanged: the same words in another order, and false.

    Whoever knows only which colours and shapes there are, and not which belongs to which, cannot tell.
    """

    def __call__(self, record: _RecordWithScene) -> str | None:
        """None where the caption has no two colours, or would still be true."""
        if "scene" not in record.extra:
            raise ValueError(f"Record {record.key!r} carries no scene; colours are swapped in captions of scenes only.")
        scene = Scene.from_json(dict(record.extra["scene"]))
        words = record.captions[0].split()
        colours = [place for place, word in enumerate(words) if word in COLOURS]
        for first, second in combinations(colours, 2):
            swapped = list(words)
            swapped[first], swapped[second] = words[second], words[first]
            text = " ".join(swapped)
            if swapped != words and not judge(text, scene).correct:
                return text
        return None
