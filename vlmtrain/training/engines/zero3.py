"""DeepSpeed's ZeRO-3: weights, gradients and moments lie in parts on the ranks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed import all_gather_into_tensor
from torch.optim import Optimizer

from vlmtrain.nn.file_weights import take_out
from vlmtrain.nn.wrapping import count_largest_unit, find_outside
from vlmtrain.training.engines.base import Result
from vlmtrain.training.engines.deepspeed import DeepSpeed
from vlmtrain.training.engines.part import Part, flat_part
from vlmtrain.training.sharing import UNITS_AT_ONCE, Extent, Sharing


class Zero3(DeepSpeed):
    """The modules of a unit (vlmtrain.nn.wrapping) are whole while they run; all else from the beginning of a pass to
    its end, so that weights may be read outside of the module that owns them, as a chunked cross-entropy does.
    """

    needs_all_ranks = True

    def sharing(self, num_processes: int) -> Sharing:
        return Sharing(
            trained=num_processes,
            frozen=num_processes,
            gradients=num_processes,
            moments=num_processes,
            gathered=Extent.UNITS,
            buffered=Extent.UNITS,
            has_masters=True,
            offloads=self.offloads,
        )

    def receive(self, accelerator: Accelerator, model: nn.Module) -> None:
        for parameter in model.parameters():
            if parameter.requires_grad:  # averages and an optimizer are made of these before they lie in parts
                take_out(parameter, accelerator.device)

    def _initialize(self, accelerator: Accelerator, root: nn.Module, optimizer: Optimizer) -> None:
        from deepspeed.runtime.zero import register_external_parameter

        codes = [name for name, parameter in root.named_parameters() if not parameter.is_floating_point()]
        if codes:
            raise ValueError(
                f"ZeRO-3 takes numbers apart, and {len(codes)} weights are codes ({codes[0]}, ...), as precision=nf4 "
                "makes them; use distributed=fsdp2 or deepspeed_zero2, where all processes keep them, or precision=bf16"
            )
        outside = find_outside(root)
        super()._initialize(accelerator, root, optimizer)
        for parameter in outside:
            register_external_parameter(root, parameter)

    @contextmanager
    def scalars_apart(self, root: nn.Module, config: dict[str, Any]) -> Iterator[None]:
        """They have one axis while it takes the weights apart, and none when they are whole again."""
        from deepspeed.runtime.zero import Init

        for buffer in root.buffers():
            buffer.data = buffer.data.to(self.accelerator.device)
        scalars = [parameter for parameter in root.parameters() if parameter.ndim == 0]
        for parameter in scalars:
            parameter.data = parameter.data.view(1)
        Init(module=_TakenOutInTurn(root, self.accelerator.device), config_dict_or_path=config)
        for parameter in scalars:
            parameter.ds_shape = torch.Size(())  # type: ignore[attr-defined]
        yield

    def inside(self, function: Callable[[], Result]) -> Result:
        try:
            return super().inside(function)
        finally:
            self._take_apart()

    def weights_were_put(self) -> None:
        self._take_apart()
        super().weights_were_put()

    def zero_config(self) -> dict[str, Any]:
        unit, outside = count_largest_unit(self.step), find_outside(self.step)
        # DeepSpeed's own choices are made for models of many billions: it lets one billion numbers be whole at once
        return {
            "stage": 3,
            "stage3_param_persistence_threshold": 0,
            "stage3_max_live_parameters": sum(each.numel() for each in outside) + UNITS_AT_ONCE * unit,
            "stage3_max_reuse_distance": unit,
            "stage3_prefetch_bucket_size": unit,
            "reduce_bucket_size": self.bucket,
        }

    def norm(self) -> Tensor:
        from deepspeed.runtime.utils import combine_grad_norm_groups

        return combine_grad_norm_groups(self.zero._get_norm_groups())

    def flat(self, parameter: Tensor) -> Tensor:
        group, _, _ = self.zero.grad_position[self.zero.get_param_id(parameter)]
        flat: Tensor = self.zero.fp32_partitioned_groups_flat[group]
        return flat

    def held(self, value: Tensor) -> Tensor:
        part: Tensor = getattr(value, "ds_tensor", value)
        return part.detach()

    def whole(self, value: Tensor, held: Tensor | None = None) -> Tensor:
        held = self.held(value) if held is None else held
        if not hasattr(value, "ds_tensor"):
            return held
        parts = torch.empty(self.accelerator.num_processes * held.numel(), dtype=held.dtype, device=held.device)
        all_gather_into_tensor(parts, held.contiguous())
        return parts[: value.ds_numel].view(value.ds_shape)  # type: ignore[attr-defined]

    def part(self, value: Tensor, held: Tensor | None = None) -> Part:
        held = self.held(value) if held is None else held
        if not hasattr(value, "ds_tensor"):
            return super().part(value, held)
        # the last part is filled up
        start = held.numel() * self.accelerator.process_index
        left = max(value.ds_numel - start, 0)  # type: ignore[attr-defined]
        return flat_part(value.ds_shape, start, held.flatten()[:left])  # type: ignore[attr-defined]

    def put(self, value: Tensor, whole: Tensor, held: Tensor | None = None) -> None:
        held = self.held(value) if held is None else held
        held.copy_(self._part(value, whole) if hasattr(value, "ds_tensor") else whole)

    def whole_moment(self, parameter: Tensor, moment: str) -> Tensor:
        from deepspeed.utils import safe_get_local_optimizer_state

        return self.whole(parameter, safe_get_local_optimizer_state(parameter, moment))

    def moment_part(self, parameter: Tensor, moment: str) -> Part:
        from deepspeed.utils import safe_get_local_optimizer_state

        return self.part(parameter, safe_get_local_optimizer_state(parameter, moment))

    def put_moment(self, parameter: Tensor, moment: str, whole: Tensor) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        safe_set_local_optimizer_state(parameter, self._part(parameter, whole), moment)

    def replicas(self, model: nn.Module) -> dict[str, Tensor]:
        return {}

    def _take_apart(self) -> None:
        """What is still whole is of the weights as they were."""
        self.zero.parameter_offload.partition_all_parameters()

    def _part(self, value: Tensor, whole: Tensor) -> Tensor:
        """Of a whole tensor, laid out flat and filled up with zeros, what this rank holds."""
        size = value.ds_tensor.numel()  # type: ignore[attr-defined]
        flat = torch.zeros(size * self.accelerator.num_processes, dtype=whole.dtype, device=whole.device)
        flat[: whole.numel()] = whole.flatten()
        return flat.narrow(0, size * self.accelerator.process_index, size)


class _TakenOutInTurn(nn.Module):
    """For DeepSpeed, which takes a weight apart before it asks for the next one: so only one is whole at a time."""

    def __init__(self, root: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.root = root
        self.device = device

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        for parameter in self.root.parameters(recurse):
            if not hasattr(parameter, "ds_tensor"):
                take_out(parameter, self.device)
            yield parameter
