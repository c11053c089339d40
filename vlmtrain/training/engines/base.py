"""How the processes of a stage share its weights, gradients and moments."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from vlmtrain.nn.file_weights import take_all_out
from vlmtrain.objectives.base import Loss
from vlmtrain.training.engines.part import Part, whole_part
from vlmtrain.training.sharing import Sharing
from vlmtrain.training.step import TrainingStep

Result = TypeVar("Result")


class Engine(ABC):
    """Everything a step asks of the way it is spread over processes; the step itself asks nothing else.

    First `receive`, then `lay_out`, then an optimizer is made over the parameters as they are then, then `start`.  What
    a rank holds of a tensor may be a part; `whole` and `put` go between the part and the whole, and all ranks call them
    alike.  Gradients are sums over ranks.
    """

    lets_gradients_be_asked: bool = False  # torch.autograd.grad, beside backward and before it
    needs_all_ranks: bool = False  # weights are in parts: whoever looks at the model looks together with all ranks
    accelerator: Accelerator
    step: TrainingStep
    optimizer: Optimizer

    def receive(self, accelerator: Accelerator, model: nn.Module) -> None:
        """A model that was just built, whose pretrained weights may lie in their files still (nn.file_weights).

        Who keeps weights in parts leaves them there, so that no process ever holds all of them.
        """
        take_all_out(model, accelerator.device)

    def sharing(self, num_processes: int) -> Sharing:
        """What of it each of so many processes would hold; asked of engines that never run."""
        return Sharing()

    def lay_out(self, accelerator: Accelerator, step: TrainingStep) -> None:
        """Put the weights where they will be, as far as that comes before the optimizer."""
        self.accelerator, self.step = accelerator, step

    def start(self, accelerator: Accelerator, step: TrainingStep, optimizer: Optimizer) -> None:
        """Take over a step and its optimizer; called again when other parameters train than before."""
        self.accelerator, self.step, self.optimizer = accelerator, step, optimizer

    @abstractmethod
    def forward(self, *inputs: object) -> Loss:
        """The training step on one micro-batch (see TrainingStep.forward), inside `syncing`."""

    @abstractmethod
    def backward(self, value: Tensor) -> None:
        """Gradients of this rank's share of the loss, inside `syncing`."""

    @abstractmethod
    def syncing(self, is_last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch; gradients need not be those of all ranks before the last."""

    @abstractmethod
    def divide_gradient(self, scale: float) -> None:
        """By a power of two that the losses were multiplied by; asked between the last backward and the norm."""

    @abstractmethod
    def gradient_norm(self) -> Tensor:
        """Of the global gradient, the same on all ranks; nothing has been applied yet."""

    @abstractmethod
    def apply(self, norm: Tensor, limit: float | None) -> None:
        """Scale the gradient down to `limit`, take the optimizer's step and forget the gradient."""

    @abstractmethod
    def discard(self) -> None:
        """Forget the gradient; weights and moments stay as they are."""

    def inside(self, function: Callable[[], Result]) -> Result:
        """What `function` gives, which may call methods of the model other than the step's forward."""
        return function()

    def held(self, value: Tensor) -> Tensor:
        """What this rank holds of a parameter or buffer, live: to write into it is to change the weight."""
        return value.detach()

    def whole(self, value: Tensor, held: Tensor | None = None) -> Tensor:
        """The whole of a parameter or buffer, or of what is laid out like it, of which this rank holds `held`."""
        return value.detach() if held is None else held

    def put(self, value: Tensor, whole: Tensor, held: Tensor | None = None) -> None:
        """Write this rank's part of `whole` into a parameter or buffer, or into `held`, which is laid out like it."""
        (value.detach() if held is None else held).copy_(whole)

    def part(self, value: Tensor, held: Tensor | None = None) -> Part:
        """What this rank writes of a parameter or buffer, or of what is laid out like it; asks no other rank."""
        return whole_part(value.detach() if held is None else held, self.accelerator.is_main_process)

    def weights_were_put(self) -> None:
        """Called when all that was to be put is there: the place for what follows from it."""
        return

    @abstractmethod
    def moments(self, parameter: Tensor) -> dict[str, Tensor]:
        """The optimizer's moments of a parameter, whole; empty where it has none."""

    @abstractmethod
    def moment_parts(self, parameter: Tensor) -> dict[str, Part]:
        """What this rank writes of the optimizer's moments of a parameter; asks no other rank."""

    @abstractmethod
    def put_moments(self, parameter: Tensor, moments: dict[str, Tensor]) -> None:
        """Give a parameter these moments, whole ones; none: it starts anew."""

    @abstractmethod
    def replicas(self, model: nn.Module) -> dict[str, Tensor]:
        """Trained parameters, by name, that every rank holds a copy of."""
