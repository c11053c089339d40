"""Which layer of an encoder is read."""


def blocks_read(tap: int, depth: int) -> int:
    """How many of `depth` blocks must run so that the output of block `tap` is known; -1 is the last.

    Counted from the end like a Python index, so that a config means the same in encoders of any depth.
    """
    if not -depth <= tap <= -1:
        raise ValueError(f"tap {tap}: choose a layer from {-depth} (the first) to -1 (the last, with the final norm).")
    return depth + 1 + tap
