"""Every process has the whole model: DDP, and a process alone."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vlmtrain.objectives.base import Loss
from vlmtrain.training.engines.base import Engine
from vlmtrain.training.engines.part import Part, whole_part
from vlmtrain.training.optimizer import moments_of, put_moments
from vlmtrain.training.sharing import Extent, Sharing
from vlmtrain.training.step import TrainingStep


class Replicated(Engine):
    """Gradients are averaged, and each process takes the same step.

    DDP looks for unused parameters: a step in which some part sees nothing (a text-only batch) must not hang the other
    ranks.  It also keeps DDP from laying its buckets anew after the first step, and with that a resumed run summing in
    the order of the uninterrupted one.
    """

    lets_gradients_be_asked = True

    wrapped: nn.Module

    @classmethod
    def over(cls, optimizer: Optimizer) -> Self:
        """One for what is saved and restored, without a step."""
        engine = cls()
        engine.optimizer = optimizer
        return engine

    def sharing(self, num_processes: int) -> Sharing:
        return Sharing(buffered=Extent.EVERYTHING if num_processes > 1 else Extent.NOTHING)

    def start(self, accelerator: Accelerator, step: TrainingStep, optimizer: Optimizer) -> None:
        super().start(accelerator, step, optimizer)
        self.wrapped = step.to(accelerator.device)
        if accelerator.num_processes > 1:  # DDP knows the parameters that had a gradient when it was made
            devices = [accelerator.device] if accelerator.device.type == "cuda" else None
            with warnings.catch_warnings():  # its other name does something else: it syncs buffers at the start
                warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
                self.wrapped = DistributedDataParallel(
                    step, device_ids=devices, broadcast_buffers=False, find_unused_parameters=True
                )

    def forward(self, *inputs: object) -> Loss:
        loss: Loss = self.wrapped(*inputs)
        return loss

    def backward(self, value: Tensor) -> None:
        (value * self.accelerator.num_processes).backward()  # DDP divides by it

    def syncing(self, is_last: bool) -> AbstractContextManager[None]:
        if is_last or not isinstance(self.wrapped, DistributedDataParallel):
            return nullcontext()
        return self.wrapped.no_sync()

    def divide_gradient(self, scale: float) -> None:
        for gradient in self._gradients():
            gradient.div_(scale)

    def gradient_norm(self) -> Tensor:
        return torch.nn.utils.get_total_norm(self._gradients())

    def apply(self, norm: Tensor, limit: float | None) -> None:
        if limit is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters(), limit, norm)
        self.optimizer.step()
        self.discard()

    def discard(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def moments(self, parameter: Tensor) -> dict[str, Tensor]:
        return moments_of(self.optimizer, parameter)

    def moment_parts(self, parameter: Tensor) -> dict[str, Part]:
        is_mine = self.accelerator.is_main_process
        return {name: whole_part(value, is_mine) for name, value in self.moments(parameter).items()}

    def put_moments(self, parameter: Tensor, moments: dict[str, Tensor]) -> None:
        put_moments(self.optimizer, parameter, moments)

    def replicas(self, model: nn.Module) -> dict[str, Tensor]:
        return {name: value for name, value in model.named_parameters() if value.requires_grad}

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
