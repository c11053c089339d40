"""DeepSpeed's ZeRO: moments (1), gradients as well (2), weights as well (3) lie in parts on the ranks."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmtrain.nn.wrapping import count_largest_unit
from vlmtrain.objectives.base import Loss
from vlmtrain.training.engines.base import Engine, Result
from vlmtrain.training.engines.part import Part, flat_part, whole_part
from vlmtrain.training.engines.process_group import require_process_group
from vlmtrain.training.sharing import Extent, Sharing
from vlmtrain.training.step import TrainingStep

LEFT_OUT = "ds_optim_param"  # what has it, DeepSpeed does not broadcast
AGE, MOMENTS = "step", ("exp_avg", "exp_avg_sq")  # torch's AdamW calls them so


class DeepSpeed(Engine):
    """What the stages of ZeRO have in common.  DeepSpeed is handed our optimizer, and takes steps when told to.

    It keeps weights in fp32; trainer.precision=bf16 and fp16 are autocast, as with every engine.  It takes the loss
    scale for a static one of its own, of this step, and divides by it where it clips.
    """

    deepspeed: Any = None  # a DeepSpeedEngine, and its ZeRO optimizer
    zero: Any

    def __init__(self, offload: bool = False) -> None:
        self.offload = offload
        self._ages: dict[int, float] = {}

    @property
    def offloads(self) -> frozenset[str]:
        return frozenset({"moments"} if self.offload else ())

    @property
    def bucket(self) -> int:
        """Numbers of the buffer that gradients are reduced from, which is made at once: those of a unit.

        DeepSpeed's own choice, 500 million, is more than all gradients of many a model that is trained here.
        """
        trained = sum(parameter.numel() for parameter in self.step.parameters() if parameter.requires_grad)
        return min(count_largest_unit(self.step), trained)

    @abstractmethod
    def zero_config(self) -> dict[str, Any]:
        """DeepSpeed's section `zero_optimization`."""

    @abstractmethod
    def norm(self) -> Tensor:
        """Of the gradient that ZeRO holds in parts; infinite where it is not finite."""

    @abstractmethod
    def flat(self, parameter: Tensor) -> Tensor:
        """The tensor that the optimizer moves in place of `parameter` and its neighbours."""

    @abstractmethod
    def whole_moment(self, parameter: Tensor, moment: str) -> Tensor: ...

    @abstractmethod
    def moment_part(self, parameter: Tensor, moment: str) -> Part: ...

    @abstractmethod
    def put_moment(self, parameter: Tensor, moment: str, whole: Tensor) -> None: ...

    def start(self, accelerator: Accelerator, step: TrainingStep, optimizer: Optimizer) -> None:
        if self.deepspeed is not None:
            assert optimizer is self.optimizer, "the weights lie in DeepSpeed's buffers already"
            return
        super().start(accelerator, step, optimizer)
        if find_spec("deepspeed") is None:
            raise ValueError("DeepSpeed is not installed: pip install 'vlmtrain[deepspeed]', or use distributed=fsdp2")
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not all(parameter.requires_grad for parameter in parameters):
            raise ValueError(
                "ZeRO moves everything from the first step, and a part with from_step under trainable begins later; "
                "use distributed=ddp or distributed=fsdp2"
            )
        self._initialize(accelerator, _Root(step), optimizer)

    def forward(self, *inputs: object) -> Loss:
        totals, metrics = self.deepspeed(self._in_dicts, inputs)
        return Loss(totals, metrics)

    def _in_dicts(self, *inputs: object) -> tuple[dict[str, Tensor], Any]:
        loss = self.step(*inputs)
        return loss.totals, loss.metrics

    def inside(self, function: Callable[[], Result]) -> Result:
        result: Result = self.deepspeed.module(_boxed, (function,)).content
        return result

    def backward(self, value: Tensor) -> None:
        self.deepspeed.backward(value * self.accelerator.num_processes)  # ZeRO divides by it

    @contextmanager
    def syncing(self, is_last: bool) -> Iterator[None]:
        self.deepspeed.set_gradient_accumulation_boundary(is_last)
        yield

    def divide_gradient(self, scale: float) -> None:
        self.zero.loss_scaler.cur_scale = scale

    def gradient_norm(self) -> Tensor:
        return self.norm().to(self.accelerator.device) / self.zero.loss_scaler.cur_scale

    def apply(self, norm: Tensor, limit: float | None) -> None:
        self.zero.clip_grad = limit or 0.0
        self.zero.step()
        self.zero.zero_grad(set_to_none=True)
        self.zero.loss_scaler.cur_scale = 1.0  # else it would multiply the next losses itself

    def discard(self) -> None:
        # a gradient that is not finite ZeRO throws away itself, on all ranks
        nothing = torch.tensor(float("nan"), device=self.accelerator.device)
        gradients = [each for group in self.zero.averaged_gradients.values() for each in group or ()]
        for gradient in gradients:
            gradient.copy_(nothing)
        if self.offload:  # gradients rest elsewhere, and their norms are known already
            self.zero.norm_for_param_grads = dict.fromkeys(self.zero.norm_for_param_grads, nothing)
        self.apply(nothing, None)
        for gradient in gradients:  # ZeRO-3 uses them again, and nobody writes where they are filled up
            gradient.zero_()

    def weights_were_put(self) -> None:
        self.zero.refresh_fp32_params()
        self._ages.clear()

    def moments(self, parameter: Tensor) -> dict[str, Tensor]:
        age = self._age(parameter)
        return {} if age is None else {AGE: age} | {name: self.whole_moment(parameter, name) for name in MOMENTS}

    def moment_parts(self, parameter: Tensor) -> dict[str, Part]:
        age = self._age(parameter)
        if age is None:
            return {}
        parts = {AGE: whole_part(age, self.accelerator.is_main_process)}
        return parts | {name: self.moment_part(parameter, name) for name in MOMENTS}

    def _age(self, parameter: Tensor) -> Tensor | None:
        """Of the moments; None where there are none yet."""
        state = self.zero.optimizer.state.get(self.flat(parameter), {})
        return torch.as_tensor(state[AGE]).clone() if AGE in state else None

    def put_moments(self, parameter: Tensor, moments: dict[str, Tensor]) -> None:
        flat, age = self.flat(parameter), float(moments.get(AGE, 0))
        if self._ages.setdefault(id(flat), age) != age:
            raise ValueError(
                f"ZeRO keeps one age for the moments of many parameters, and the checkpoint has some of {age:g} beside "
                f"others of {self._ages[id(flat)]:g} steps; resume with distributed=ddp or distributed=fsdp2"
            )
        state = self.zero.optimizer.state[flat]
        if not state:
            state |= {AGE: torch.tensor(age, device=flat.device)}
            state |= {name: torch.zeros_like(flat) for name in MOMENTS}
        torch.as_tensor(state[AGE]).fill_(age)
        for name in MOMENTS:
            self.put_moment(parameter, name, moments[name] if moments else torch.zeros_like(parameter))

    def _initialize(self, accelerator: Accelerator, root: nn.Module, optimizer: Optimizer) -> None:
        import deepspeed

        require_process_group(accelerator)
        # an extension for CPUs that it would compile for a minute; gloo does the same
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        zero = self.zero_config()
        if self.offload:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": accelerator.device.type == "cuda"}
        config = {
            "train_micro_batch_size_per_gpu": 1,  # nobody asks; batches are cut before they come here
            "gradient_accumulation_steps": 1,  # we say which micro-batch is the last, and divide by global counts
            "steps_per_print": 10**9,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        with self.scalars_apart(root, config):
            self.deepspeed = deepspeed.initialize(model=root, optimizer=optimizer, config=config)[0]
        self.zero = self.deepspeed.optimizer

    @contextmanager
    def scalars_apart(self, root: nn.Module, config: dict[str, Any]) -> Iterator[None]:
        """DeepSpeed broadcasts weights as bytes, which a tensor without axes cannot be seen as: we do it for these."""
        scalars = [parameter for parameter in root.parameters() if parameter.ndim == 0]
        for parameter in scalars:
            torch.distributed.broadcast(parameter.data, 0)
            vars(parameter)[LEFT_OUT] = True
        yield
        for parameter in scalars:
            del vars(parameter)[LEFT_OUT]


class ZeroWhole(DeepSpeed):
    """ZeRO-1 and ZeRO-2: every rank holds all weights.

    Args:
        stage: 1 shares moments, 2 gradients as well.
        offload: moments, and fp32 copies of this rank's part of the weights, rest in the CPU's memory.
    """

    def __init__(self, stage: int, offload: bool = False) -> None:
        super().__init__(offload)
        if stage not in (1, 2):
            raise ValueError(f"distributed.engine.stage is {stage}; 1 and 2 hold whole weights, 3 is deepspeed_zero3")
        self.stage = stage

    def sharing(self, num_processes: int) -> Sharing:
        return Sharing(
            gradients=num_processes if self.stage == 2 else 1,
            moments=num_processes,
            buffered=Extent.UNITS,
            has_masters=True,
            offloads=self.offloads,
        )

    def start(self, accelerator: Accelerator, step: TrainingStep, optimizer: Optimizer) -> None:
        step.to(accelerator.device)
        if self.deepspeed is None:
            groups = enumerate(optimizer.param_groups)
            self._groups = {id(parameter): index for index, group in groups for parameter in group["params"]}
        super().start(accelerator, step, optimizer)

    def zero_config(self) -> dict[str, Any]:
        return {"stage": self.stage, "reduce_bucket_size": self.bucket}

    def norm(self) -> Tensor:
        return torch.as_tensor(self.zero.scaled_global_norm())

    def flat(self, parameter: Tensor) -> Tensor:
        flat: Tensor = self.zero.single_partition_of_fp32_groups[self._groups[id(parameter)]]
        return flat

    def whole_moment(self, parameter: Tensor, moment: str) -> Tensor:
        whole = torch.zeros_like(parameter, dtype=torch.float32)
        of_whole, of_flat = self._piece(parameter)
        whole.view(-1)[of_whole] = self.zero.optimizer.state[self.flat(parameter)][moment][of_flat]
        torch.distributed.all_reduce(whole)
        return whole

    def moment_part(self, parameter: Tensor, moment: str) -> Part:
        of_whole, of_flat = self._piece(parameter)
        values = self.zero.optimizer.state[self.flat(parameter)][moment][of_flat]
        return flat_part(parameter.shape, of_whole.start, values)

    def put_moment(self, parameter: Tensor, moment: str, whole: Tensor) -> None:
        of_whole, of_flat = self._piece(parameter)
        self.zero.optimizer.state[self.flat(parameter)][moment][of_flat] = whole.contiguous().view(-1)[of_whole]

    def replicas(self, model: nn.Module) -> dict[str, Tensor]:
        return {name: value for name, value in model.named_parameters() if value.requires_grad}

    def _piece(self, parameter: Tensor) -> tuple[slice, slice]:
        """What of a parameter, laid out flat, lies in this rank's flat tensor, and where in it; it may be nothing.

        DeepSpeed's own ways to moments know only those of the first group after a first step.
        """
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:
            return slice(0, 0), slice(0, 0)
        there, here = mapping.get_hp_fragment_address(), mapping.lp_fragment_address
        return slice(here.start, here.start + here.numel), slice(there.start, there.start + there.numel)


class _Root(nn.Module):
    """What DeepSpeed wraps: whatever runs, runs inside its forward.  Tensors in dicts and tuples it sees, no others."""

    def __init__(self, step: TrainingStep) -> None:
        super().__init__()
        self.step = step

    def forward(self, function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        return function(*inputs)


@dataclass(frozen=True)
class _Box:
    """What came out of some other function than the step; nothing inside is for DeepSpeed."""

    content: Any


def _boxed(function: Callable[[], Any]) -> _Box:
    return _Box(function())
