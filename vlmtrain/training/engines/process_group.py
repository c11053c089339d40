"""A process group of one, for engines that want one where a process is alone."""

import torch.distributed
from accelerate import Accelerator


def require_process_group(accelerator: Accelerator) -> None:
    """Accelerate starts one for several processes."""
    if not torch.distributed.is_initialized():
        assert accelerator.num_processes == 1
        backend = "nccl" if accelerator.device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
