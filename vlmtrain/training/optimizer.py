"""AdamW over what trains: groups by rate and by decay, everything addressed by parameter name."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

logger = logging.getLogger(__name__)

NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm2d,
)


@dataclass(frozen=True)
class AdamWChoices:
    """How AdamW moves weights; `layer_decay` multiplies the rate once per layer below the top."""

    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    layer_decay: float | None = None


def build_optimizer(model: nn.Module, multiples: dict[str, float], choices: AdamWChoices) -> Optimizer:
    """AdamW over the parameters named in `multiples` (see `set_trainability`), fused where the device allows.

    No weight decay on norms, biases and other tensors of fewer than two axes; embeddings and query tokens decay like
    any matrix.  A group's rate is set before every step: schedule * group["multiple"] (see `set_learning_rate`).
    """
    parameters = dict(model.named_parameters())
    uncovered = [name for name, parameter in parameters.items() if parameter.requires_grad != (name in multiples)]
    if uncovered:
        raise ValueError(f"trainable and frozen parameters differ from the rates given for: {', '.join(uncovered[:5])}")
    if not multiples:
        raise ValueError("nothing trains: every part is frozen; give at least one part a rate under trainable")
    depth = layer_scales(list(parameters), choices.layer_decay)
    undecayed = _undecayed(model)
    groups: dict[tuple[float, bool], list[str]] = {}
    for name, multiple in multiples.items():
        groups.setdefault((multiple * depth[name], name not in undecayed), []).append(name)
    described = [
        {
            "params": [parameters[name] for name in names],
            "names": names,
            "multiple": multiple,
            "weight_decay": choices.weight_decay if decays else 0.0,
        }
        for (multiple, decays), names in groups.items()
    ]
    return AdamW(described, lr=0.0, betas=(choices.betas[0], choices.betas[1]), eps=choices.eps, fused=True)


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["multiple"]


def layer_scales(names: list[str], layer_decay: float | None) -> dict[str, float]:
    """Parameter name -> layer_decay ** (layers above it), counted per component (BEiT, arXiv 2106.08254, section 3.2).

    A layer is a numbered module ("encoder.blocks.7.…"); the longest such stack of a component counts.  What comes
    before the stack (embeddings) lies one below its first layer, what comes after (norms, heads) has scale 1.
    """
    if layer_decay is None:
        return dict.fromkeys(names, 1.0)
    scales: dict[str, float] = {}
    components: dict[str, list[str]] = {}
    for name in names:
        components.setdefault(name.split(".", 1)[0], []).append(name)
    for members in components.values():
        layers = _layers(members)
        count = 1 + max(layers.values(), default=-1)
        is_above = not layers
        for name in members:
            is_above = is_above or name in layers
            above = count - 1 - layers[name] if name in layers else (0 if is_above else count)
            scales[name] = layer_decay**above
    return scales


def _layers(names: list[str]) -> dict[str, int]:
    """Parameter name -> number of its layer in the longest numbered stack."""
    stacks: dict[str, dict[str, int]] = {}
    for name in names:
        for found in re.finditer(r"\.(\d+)\.", name):
            stacks.setdefault(name[: found.start()], {})[name] = int(found[1])
    longest = max(stacks.values(), key=lambda stack: len(set(stack.values())), default={})
    return longest if len(set(longest.values())) > 1 else {}


def _undecayed(model: nn.Module) -> set[str]:
    of_norms = {id(parameter) for part in model.modules() if isinstance(part, NORMS) for parameter in part.parameters()}
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim < 2 or name.endswith("bias") or id(parameter) in of_norms
    }


@dataclass(frozen=True)
class Restored:
    """What became of the moments in a checkpoint: `kept` ones follow their names, `new` ones start at zero."""

    kept: list[str]
    new: list[str]
    dropped: list[str]


def named_parameters(optimizer: Optimizer) -> list[tuple[str, Tensor]]:
    """Everything that the optimizer moves, by name."""
    return [
        (name, parameter)
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    ]


def moments_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """Name of a moment -> its value; empty before the first step."""
    return {name: torch.as_tensor(value) for name, value in optimizer.state.get(parameter, {}).items()}


def put_moments(optimizer: Optimizer, parameter: Tensor, moments: dict[str, Tensor]) -> None:
    """Give a parameter copies of these moments; none: it starts anew."""
    optimizer.state.pop(parameter, None)
    if moments:
        optimizer.state[parameter] = {name: value.to(parameter.device, copy=True) for name, value in moments.items()}


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """All moments, as "<parameter name>::<moment>"."""
    return {
        f"{name}::{moment}": value
        for name, parameter in named_parameters(optimizer)
        for moment, value in moments_of(optimizer, parameter).items()
    }


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> Restored:
    """`restore_moments` of an optimizer that holds whole parameters."""
    named = dict(named_parameters(optimizer))
    shapes = {name: parameter.shape for name, parameter in named.items()}
    return restore_moments(named, shapes, tensors, partial(put_moments, optimizer))


def restore_moments(
    named: Mapping[str, Tensor],
    shapes: Mapping[str, torch.Size],
    tensors: Mapping[str, Tensor],
    put: Callable[[Tensor, dict[str, Tensor]], None],
) -> Restored:
    """Give each parameter the moments saved under its own name, and nobody those of another."""
    saved: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, moment = key.rsplit("::", 1)
        saved.setdefault(name, {})[moment] = value
    kept: list[str] = []
    new: list[str] = []
    for name, parameter in named.items():
        moments = saved.get(name, {})
        fits = bool(moments) and all(value.ndim == 0 or value.shape == shapes[name] for value in moments.values())
        put(parameter, moments if fits else {})
        (kept if fits else new).append(name)
    restored = Restored(kept, new, sorted(set(saved) - set(kept)))
    if restored.new or restored.dropped:
        logger.warning(
            "optimizer state: %d kept; %d start anew (%s); %d dropped (%s)",
            *(len(kept), len(new), ", ".join(new[:5]) or "none"),
            *(len(restored.dropped), ", ".join(restored.dropped[:5]) or "none"),
        )
    return restored
