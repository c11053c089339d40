"""Which sample stands where: a pure function, so that the position in the data is the step number and nothing else.

Every epoch is a permutation of the samples, drawn by a keyed bijection that needs no memory: a Feistel network (Luby
and Rackoff 1988, "How to construct pseudorandom permutations") over the next larger power of four, walked until it
falls inside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains", section 4).  Epochs follow each other
without a gap, so that no tail is dropped and a batch may hold the end of one epoch and the start of the next.
"""

import numpy as np
from numpy.typing import NDArray

from vlmtrain.data.keys import key_of

_ROUNDS = 6
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # SplitMix64 (Steele et al. 2014)


def permuted(offsets: NDArray[np.int64], num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where the permutation of this epoch sends each of `offsets` (all below `num_samples`)."""
    half_bits = max(1, -(-max(1, (num_samples - 1).bit_length()) // 2))
    keys = [np.uint64(key_of("order", seed, epoch, number)) for number in range(_ROUNDS)]
    values = _encipher(offsets.astype(np.uint64), half_bits, keys)
    while (outside := values >= np.uint64(num_samples)).any():
        values[outside] = _encipher(values[outside], half_bits, keys)
    return values.astype(np.int64)


def sample_positions(
    step: int, batch_size: int, num_samples: int, seed: int, together: int = 1
) -> list[tuple[int, int]]:
    """(epoch, index) of the `batch_size` samples of the global batch of `step`, in order.

    Every `together` samples that follow each other in the data come into the same batch, side by side.
    """
    if together > 1:
        if batch_size % together or num_samples % together:
            raise ValueError(
                f"samples come in groups of {together}: batch size {batch_size} and number of samples {num_samples} "
                f"must be multiples of it"
            )
        groups = sample_positions(step, batch_size // together, num_samples // together, seed)
        return [(epoch, group * together + member) for epoch, group in groups for member in range(together)]
    if not 0 < batch_size <= num_samples:
        raise ValueError(
            f"the global batch has {batch_size} samples and the data has {num_samples}: a batch must be at least 1 and "
            "at most as large as the data. Lower trainer.batch_size or add data."
        )
    if step < 0:
        raise ValueError(f"step {step} is before the start: steps count from 0")
    first_epoch, offset = divmod(step * batch_size, num_samples)
    positions: list[tuple[int, int]] = []
    for epoch in (first_epoch, first_epoch + 1):
        end = min(offset + batch_size - len(positions), num_samples)
        if end > offset:
            indices = permuted(np.arange(offset, end), num_samples, seed, epoch)
            positions += [(epoch, index) for index in indices.tolist()]
        offset = 0
    return positions


def reserve(position: int, attempt: int, num_samples: int, seed: int) -> int:
    """Index of the sample that stands in, at the `attempt`-th try, for a broken one at this global position."""
    return key_of("reserve", seed, position, attempt) % num_samples


def _encipher(values: NDArray[np.uint64], half_bits: int, keys: list[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of [0, 4 ** half_bits)."""
    bits, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right + key) & mask)
    return (left << bits) | right


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64; wraps around on purpose."""
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        values = (values ^ (values >> np.uint64(shift))) * multiplier
    return values ^ (values >> np.uint64(31))
