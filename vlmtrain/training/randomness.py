"""Randomness is keyed, never carried: what is drawn depends on where it is drawn, not on what was drawn before."""

import hashlib

import torch


def derive_seed(*keys: int) -> int:
    """A 63-bit seed that depends on every key and on their order."""
    digest = hashlib.blake2b(",".join(str(int(key)) for key in keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_micro_batch(seed: int, step: int, micro_batch: int) -> None:
    """Seed dropout and its kind (CPU and all GPUs) for micro-batch `micro_batch`, counted over all ranks, of `step`.

    A resumed run so draws what the uninterrupted run drew, with no generator state in the checkpoint.
    """
    torch.manual_seed(derive_seed(seed, step, micro_batch))
