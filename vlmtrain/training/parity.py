"""Do all ranks hold the same weights?  Memory, links and kernels err silently; DDP alone never notices."""

from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor

BYTES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Divergence(Exception):
    """Ranks hold different weights."""


def check_parity(accelerator: Accelerator, replicas: Mapping[str, Tensor]) -> None:
    """Divergence naming ranks and parameters, on all ranks, where a single bit of what all should hold alike differs.

    Compares sums over the bit patterns, taken as integers: exact, and independent of the order of summation.  Against
    the majority, and against rank 0 where there is none.
    """
    if accelerator.num_processes == 1 or not replicas:
        return
    names = list(replicas)
    own = torch.stack([_checksum(replica) for replica in replicas.values()])
    everywhere = accelerator.gather(own.unsqueeze(0)).cpu()  # [ranks, parameters]
    differs = everywhere != everywhere.mode(dim=0).values
    if accelerator.num_processes == 2:
        differs = everywhere != everywhere[0]
    if bool(differs.any()):
        told = [
            f"rank {rank}: {', '.join(name for name, is_off in zip(names, row, strict=True) if is_off)}"
            for rank, row in enumerate(differs.tolist())
            if any(row)
        ]
        raise Divergence(f"weights differ between ranks; {'; '.join(told)}")


def _checksum(parameter: Tensor) -> Tensor:
    return parameter.detach().contiguous().view(BYTES[parameter.element_size()]).sum(dtype=torch.int64)
