"""Keyed randomness: a number is drawn from what it is for, so that there is no state to save or to lose."""

import hashlib

_SIXTY_THREE_BITS = (1 << 63) - 1


def key_of(*parts: str | int) -> int:
    """63 evenly spread bits from names and numbers; the same in every process, on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") & _SIXTY_THREE_BITS


def fraction_of(*parts: str | int) -> float:
    """A number in [0, 1) from names and numbers."""
    return key_of(*parts) / (1 << 63)
