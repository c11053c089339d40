"""Repeatable random choices, keyed by what they are for: the same key gives the same choices on every machine."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Option = TypeVar("Option")


def key_of(*parts: str | int) -> int:
    """A 128-bit key from names and numbers; unlike hash(), it is the same in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


class Draws:
    """A stream of uniform draws; built only on random(), whose sequence numpy keeps from version to version."""

    def __init__(self, *parts: str | int) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=key_of(*parts)))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(self._generator.random())

    def below(self, count: int) -> int:
        return int(self._generator.random() * count)

    def pick(self, options: Sequence[Option]) -> Option:
        return options[self.below(len(options))]

    def chance(self, probability: float) -> bool:
        return float(self._generator.random()) < probability

    def order(self, count: int) -> list[int]:
        """A random order of range(count), each as likely as the others."""
        left = list(range(count))
        return [left.pop(self.below(len(left))) for _ in range(count)]
