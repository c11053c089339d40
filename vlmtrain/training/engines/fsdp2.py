"""PyTorch's FSDP2: weights, gradients and moments lie in parts on the ranks, and each unit is whole while it runs."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed import all_reduce
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from vlmtrain.nn.file_weights import take_out
from vlmtrain.nn.wrapping import find_units
from vlmtrain.objectives.base import Loss
from vlmtrain.training.engines.base import Engine, Result
from vlmtrain.training.engines.part import Part
from vlmtrain.training.engines.process_group import require_process_group
from vlmtrain.training.engines.taking_apart import fill, put_stand_ins
from vlmtrain.training.optimizer import moments_of
from vlmtrain.training.sharing import Extent, Sharing
from vlmtrain.training.step import TrainingStep


class FSDP2(Engine):
    """Parameters are sharded along their first axis; gradients are reduced after every micro-batch.

    Units are what the model's parts say (vlmtrain.nn.wrapping); all else belongs to the step, and is whole from the
    beginning of its forward pass to the end of backward.  Every part keeps its own number format.

    Args:
        reshard_after_forward: free a unit's weights after its forward pass and gather them again in backward; false
            keeps them, which is faster and takes the memory of ZeRO-2.
        shard_frozen: also what never trains; false keeps a copy of it on every rank.
        offload: weights, gradients and moments rest in the CPU's memory, where the optimizer then runs.
        copies: how many groups of ranks hold a whole copy each; 1: all ranks share one, the number of machines: parts
            travel inside a machine only (hybrid sharding).
    """

    needs_all_ranks = True

    def __init__(
        self, reshard_after_forward: bool = True, shard_frozen: bool = True, offload: bool = False, copies: int = 1
    ) -> None:
        self.reshard_after_forward = reshard_after_forward
        self.shard_frozen = shard_frozen
        self.offload = offload
        self.copies = copies
        self._is_laid_out = False

    def sharing(self, num_processes: int) -> Sharing:
        parts = max(1, num_processes // self.copies)
        return Sharing(
            trained=parts,
            frozen=parts if self.shard_frozen else 1,
            gradients=parts,
            moments=parts,
            gathered=Extent.UNITS if self.reshard_after_forward else Extent.EVERYTHING,
            offloads=frozenset({"weights", "gradients", "moments"} if self.offload else ()),
        )

    def receive(self, accelerator: Accelerator, model: nn.Module) -> None:
        for module in model.modules():
            if not all(parameter.is_floating_point() for parameter in module.parameters(recurse=False)):
                module.to(accelerator.device)  # a quantized layer, which moves its scales along with its codes

    def lay_out(self, accelerator: Accelerator, step: TrainingStep) -> None:
        super().lay_out(accelerator, step)
        mesh = self._build_mesh(accelerator)
        # what is never sharded: scalars, which have no axis, codes of quantized layers, and frozen weights by choice
        left = {
            parameter
            for parameter in step.parameters()
            if parameter.ndim == 0
            or not parameter.is_floating_point()
            or not (parameter.requires_grad or self.shard_frozen)
        }
        for parameter in filter(torch.is_floating_point, left):
            take_out(parameter, accelerator.device)
        waiting = put_stand_ins(step, left)
        is_on_gpu = accelerator.device.type == "cuda"
        policy = CPUOffloadPolicy(pin_memory=is_on_gpu) if self.offload else OffloadPolicy()
        for unit in find_units(step.model):
            if any(parameter not in left for parameter in unit.parameters()):
                fully_shard(
                    unit,
                    mesh=mesh,
                    reshard_after_forward=self.reshard_after_forward,
                    offload_policy=policy,
                    ignored_params=left,
                )
        self._root = fully_shard(step, mesh=mesh, offload_policy=policy, ignored_params=left)
        self._root.set_reduce_scatter_unused_params(True)  # a rank whose batch leaves a part out goes along
        fill(step, waiting, self._parts, self._part, torch.device("cpu") if self.offload else accelerator.device)
        # FSDP finds now where the parts lie, and fills them up to one length, before others remember where that was;
        # later it would take the first module that runs for the root of all, and that could be a unit
        self._root._get_fsdp_state()._lazy_init()
        self._is_laid_out = True

    def start(self, accelerator: Accelerator, step: TrainingStep, optimizer: Optimizer) -> None:
        assert self._is_laid_out, "call lay_out before an optimizer is made"
        super().start(accelerator, step, optimizer)
        optimizer.param_groups[:] = [part for group in optimizer.param_groups for part in _split(group)]
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._sharded = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
        self._copied = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]

    def forward(self, *inputs: object) -> Loss:
        loss: Loss = self.step(*inputs)
        return loss

    def backward(self, value: Tensor) -> None:
        (value * self.accelerator.num_processes).backward()  # the mean over ranks divides by it

    def syncing(self, is_last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def divide_gradient(self, scale: float) -> None:
        for gradient in self._gradients():
            gradient.div_(scale)

    def gradient_norm(self) -> Tensor:
        self._add_up_copied()
        squares = torch.zeros((), device=self.accelerator.device)
        parts = [_local(parameter.grad) for parameter in self._sharded if parameter.grad is not None]
        if parts:
            squares += torch.nn.utils.get_total_norm(parts).to(squares.device).square()
        all_reduce(squares, group=self._group)
        whole = [parameter.grad for parameter in self._copied if parameter.grad is not None]
        if whole:
            squares += torch.nn.utils.get_total_norm(whole).square()
        return squares.sqrt()

    def apply(self, norm: Tensor, limit: float | None) -> None:
        if limit is not None:
            factor = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grads_with_norm_
            for gradient in self._gradients():
                gradient.mul_(factor.to(gradient.device))
        self.optimizer.step()
        self.discard()

    def discard(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def inside(self, function: Callable[[], Result]) -> Result:
        self._root.unshard()
        try:
            return function()
        finally:
            self._root.reshard()

    def held(self, value: Tensor) -> Tensor:
        return _local(value.detach())

    def whole(self, value: Tensor, held: Tensor | None = None) -> Tensor:
        value = value.detach()
        if not isinstance(value, DTensor):
            return value if held is None else held
        if held is not None:
            value = DTensor.from_local(
                held, value.device_mesh, value.placements, shape=value.shape, stride=value.stride()
            )
        return self._on_device(value).full_tensor()

    def put(self, value: Tensor, whole: Tensor, held: Tensor | None = None) -> None:
        target = self.held(value) if held is None else held
        target.copy_(self._part_of(value, whole))

    def part(self, value: Tensor, held: Tensor | None = None) -> Part:
        if not isinstance(value, DTensor):
            return super().part(value, held)
        local = _local(value.detach()) if held is None else held
        each = -(-value.shape[0] // self._parts)  # rows; the last ranks may have fewer, or none
        first = self._part * each
        is_mine = self._is_first_copy and local.numel() > 0
        return Part(tuple(value.shape), (first, *[0] * (value.ndim - 1)), local if is_mine else None)

    def moments(self, parameter: Tensor) -> dict[str, Tensor]:
        return {name: self.whole(value) for name, value in moments_of(self.optimizer, parameter).items()}

    def moment_parts(self, parameter: Tensor) -> dict[str, Part]:
        return {name: self.part(value) for name, value in moments_of(self.optimizer, parameter).items()}

    def put_moments(self, parameter: Tensor, moments: dict[str, Tensor]) -> None:
        self.optimizer.state.pop(parameter, None)
        if moments:
            self.optimizer.state[parameter] = {name: self._like(parameter, value) for name, value in moments.items()}

    def replicas(self, model: nn.Module) -> dict[str, Tensor]:
        return {
            name: value
            for name, value in model.named_parameters()
            if value.requires_grad and not isinstance(value, DTensor)
        }

    def _build_mesh(self, accelerator: Accelerator) -> DeviceMesh:
        require_process_group(accelerator)
        world, device = accelerator.num_processes, accelerator.device.type
        if self.copies < 1 or world % self.copies:
            raise ValueError(
                f"distributed.engine.copies is {self.copies}; give a number that divides the {world} processes"
            )
        if self.copies == 1:
            mesh = init_device_mesh(device, (world,), mesh_dim_names=("parts",))
        else:
            mesh = init_device_mesh(device, (self.copies, world // self.copies), mesh_dim_names=("copies", "parts"))
        self._group = mesh.get_group("parts")
        self._is_first_copy = accelerator.process_index < world // self.copies
        self._parts, self._part = mesh["parts"].size(), mesh.get_local_rank("parts")
        return mesh

    def _gradients(self) -> list[Tensor]:
        """What this rank holds of each."""
        parameters = (*self._sharded, *self._copied)
        return [_local(parameter.grad) for parameter in parameters if parameter.grad is not None]

    def _add_up_copied(self) -> None:
        """Gradients of what each rank holds a copy of; FSDP knows nothing of these."""
        if not self._copied:
            return
        used = torch.tensor([float(parameter.grad is not None) for parameter in self._copied])
        used = used.to(self.accelerator.device)
        all_reduce(used)
        for parameter, count in zip(self._copied, used.tolist(), strict=True):
            if count == 0:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad)
            parameter.grad /= self.accelerator.num_processes

    def _part_of(self, value: Tensor, whole: Tensor) -> Tensor:
        if not isinstance(value, DTensor):
            return whole
        device = value.device_mesh.device_type
        return distribute_tensor(whole.to(device), value.device_mesh, value.placements, src_data_rank=None).to_local()

    def _like(self, parameter: Tensor, whole: Tensor) -> Tensor:
        """A new tensor laid out like a parameter; counters of steps stay as they are."""
        if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
            return whole.to(_local(parameter).device, copy=True)
        part = self._part_of(parameter, whole).to(_local(parameter).device, copy=True)
        mesh, placements = parameter.device_mesh, parameter.placements
        return DTensor.from_local(part, mesh, placements, shape=parameter.shape, stride=parameter.stride())

    def _on_device(self, value: DTensor) -> DTensor:
        """Offloaded parts cannot be gathered where they rest."""
        device = value.device_mesh.device_type
        return value if _local(value).device.type == device else cast(DTensor, value.to(device))


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _split(group: dict[str, object]) -> Iterator[dict[str, object]]:
    """An optimizer's kernels take parts or whole tensors, and not both at once."""
    pairs = list(zip(cast(list[str], group["names"]), cast(list[Tensor], group["params"]), strict=True))
    for is_part in (True, False):
        chosen = [pair for pair in pairs if isinstance(pair[1], DTensor) == is_part]
        if chosen:
            names, parameters = zip(*chosen, strict=True)
            yield {**group, "params": list(parameters), "names": list(names)}
