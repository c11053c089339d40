"""The Accelerator: where the step runs, in what precision, and on how many processes."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from vlmtrain.training.precision import Precision, resolve_precision


def build_accelerator(precision: Precision = "auto", num_processes: int = 1, timeout_minutes: int = 30) -> Accelerator:
    """One process, or one of `num_processes` that torchrun or srun started; gloo on CPU, NCCL on GPUs.

    It says who and where a process is and adds up over all; how they share weights is for an engine
    (vlmtrain.training.engines).
    """
    _check_processes(num_processes)
    mixed_precision = "bf16" if resolve_precision(precision) == "bf16" else "no"
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()  # an earlier stage of this process ran in another precision
    accelerator = Accelerator(
        # Without it, accelerate on a machine without GPU takes every process for the only one.
        cpu=not torch.cuda.is_available(),
        mixed_precision=mixed_precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(minutes=timeout_minutes))],
    )
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
