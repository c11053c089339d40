"""The Accelerator: where the step runs, in what precision, and on how many processes."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from vlmtrain.training.precision import FORMATS, Precision, resolve_precision


class AutocastingAccelerator(Accelerator):  # type: ignore[misc]  # accelerate is not typed
    """One whose autocast is torch's, of any format on any device.

    Accelerate's own is one of a process for good, and in fp16 it wants a GPU and brings a loss scale along that no
    engine knows.
    """

    number_format: torch.dtype = torch.float32

    def autocast(self) -> torch.autocast:
        """A block in which matrix products are made in `number_format`."""
        is_lower = self.number_format != torch.float32
        return torch.autocast(self.device.type, self.number_format if is_lower else None, enabled=is_lower)


def build_accelerator(precision: Precision = "auto", num_processes: int = 1, timeout_minutes: int = 30) -> Accelerator:
    """One process, or one of `num_processes` that torchrun or srun started; gloo on CPU, NCCL on GPUs.

    It says who and where a process is and adds up over all; how they share weights is for an engine
    (vlmtrain.training.engines).
    """
    _check_processes(num_processes)
    accelerator = AutocastingAccelerator(
        # Without it, accelerate on a machine without GPU takes every process for the only one.
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=timeout_minutes))],
    )
    accelerator.number_format = FORMATS[resolve_precision(precision)]
    if accelerator.num_processes != num_processes:
        raise ValueError(
            f"distributed.num_processes is {num_processes}, but {accelerator.num_processes} process(es) found each "
            f"other; start with torchrun --nproc_per_node {num_processes}"
        )
    return accelerator


def _check_processes(num_processes: int) -> None:
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != num_processes:
        raise ValueError(
            f"distributed.num_processes is {num_processes}, but {started} process(es) were started; "
            f"start with torchrun --nproc_per_node {num_processes}, or set distributed.num_processes={started}"
        )
