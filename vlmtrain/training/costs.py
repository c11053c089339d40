"""What a stage takes: parameters by part (exact), bytes of memory and disk (weights exact, activations roughly)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from vlmtrain.nn.wrapping import count_largest_unit, find_outside, find_units
from vlmtrain.training.precision import Resolved
from vlmtrain.training.sharing import UNITS_AT_ONCE, Extent, Sharing

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
FORMATS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
MASTER_BYTES = 4  # trained weights, their gradients and each of Adam's two moments are fp32
KEPT_PER_OUTPUT = 2.0  # activations that backward keeps per output of a linear layer: norms, activation functions, ...


@dataclass(frozen=True)
class PartCost:
    """One child of a model; `heads` stands for the parameters that are the model's own."""

    name: str
    source: str
    parameters: int
    trainable: int
    precision: str  # of most of its weights: "bf16", "bf16, fp32" where adapters beside frozen ones train


@dataclass(frozen=True)
class MemoryCost:
    """Bytes of one process: of its device, and of the CPU where things are offloaded to it."""

    weights: int
    gradients: int
    optimizer: int  # two moments; averages and master weights where there are some
    activations: int  # rough: within a factor of two
    gathered: int = 0  # weights and gradients that lie in parts, as far as they are whole while a step runs
    offloaded: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.gathered


def list_part_costs(model: nn.Module) -> list[PartCost]:
    """The parts in order, each parameter counted once, in the formats that they have."""
    seen: set[int] = set()
    costs = []
    for name, child in model.named_children():
        parameters = [parameter for parameter in child.parameters() if id(parameter) not in seen]
        seen.update(id(parameter) for parameter in parameters)
        if parameters:
            costs.append(_cost_of(name, str(getattr(child, "source", "random")), parameters))
    own = list(model.parameters(recurse=False))
    return [*costs, _cost_of("heads", "random", own)] if own else costs


def estimate_memory(
    model: nn.Module,
    precision: Resolved,
    micro_batch: int,
    is_checkpointing: bool = False,
    sharing: Sharing | None = None,
    has_average: bool = False,
) -> MemoryCost:
    """What one process takes that trains `micro_batch` samples, sharing the rest as `sharing` says.

    `model` has its formats already; `precision` is that of activations.
    """
    sharing = sharing or Sharing()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    numbers = sum(parameter.numel() for parameter in trained)
    in_bytes = MASTER_BYTES * numbers
    buffered = {Extent.NOTHING: 0, Extent.UNITS: min(count_largest_unit(model), numbers), Extent.EVERYTHING: numbers}
    weights = in_bytes // sharing.trained + size_of(frozen) // sharing.frozen
    gradients = in_bytes // sharing.gradients
    moments = (2 + sharing.has_masters) * in_bytes // sharing.moments
    average = in_bytes // sharing.trained if has_average else 0
    activations = int(_count_kept(model, is_checkpointing) * micro_batch * BYTES[precision])
    resting = {"weights": weights, "gradients": gradients, "moments": moments}
    here = {name: 0 if name in sharing.offloads else value for name, value in resting.items()}
    return MemoryCost(
        weights=here["weights"],
        gradients=here["gradients"] + MASTER_BYTES * buffered[sharing.buffered],
        optimizer=here["moments"] + average,
        activations=activations,
        gathered=_gathered(model, sharing),
        offloaded=sum(resting.values()) - sum(here.values()),
    )


def size_of(parameters: Iterable[nn.Parameter]) -> int:
    """Bytes."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _cost_of(name: str, source: str, parameters: list[nn.Parameter]) -> PartCost:
    counts: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    for parameter in parameters:
        counts[parameter.requires_grad][FORMATS.get(parameter.dtype, "codes")] += parameter.numel()
    spelled = dict.fromkeys(count.most_common(1)[0][0] for count in counts.values() if count)
    return PartCost(
        name, source, counts[False].total() + counts[True].total(), counts[True].total(), ", ".join(spelled)
    )


def _gathered(model: nn.Module, sharing: Sharing) -> int:
    """Bytes of weights, and of gradients before they are shared out, that are whole while a step runs."""
    if sharing.gathered is Extent.NOTHING:
        return 0
    groups = [find_outside(model), *(unit.parameters() for unit in find_units(model))]
    outside, *units = [[each for each in group if each.requires_grad or sharing.frozen > 1] for group in groups]
    at_once = sorted(map(size_of, units))[-UNITS_AT_ONCE:] if sharing.gathered is Extent.UNITS else map(size_of, units)
    trained = [[each for each in group if each.requires_grad] for group in (outside, *units)]
    gradients = size_of(trained[0]) + max(map(size_of, trained[1:]), default=0)
    return size_of(outside) + sum(at_once) + gradients


def _count_kept(model: nn.Module, is_checkpointing: bool) -> float:
    """Numbers per sample that backward keeps.  A part before the first trained one keeps nothing."""
    kept = 0.0
    patches = int(getattr(getattr(model, "encoder", None), "patches_per_tile", 0))
    visual = int(getattr(getattr(model, "connector", None), "tokens_per_tile", 0))
    has_gradient = False
    for name, child in model.named_children():
        has_gradient = has_gradient or any(parameter.requires_grad for parameter in child.parameters())
        if has_gradient:
            tokens = patches if name == "encoder" else _tokens_of(child, visual)
            layers = [module for module in child.modules() if isinstance(module, nn.Linear)]
            outputs = sum(layer.out_features for layer in layers if layer.out_features < 20 * layer.in_features)
            kept += tokens * outputs * KEPT_PER_OUTPUT * (0.1 if is_checkpointing else 1.0)
    return kept


def _tokens_of(part: nn.Module, visual: int) -> int:
    """Positions that a part works on, per sample: queries, visual tokens, text."""
    texts = [int(value) for module in part.modules() if (value := getattr(module, "max_tokens", None))]
    queries = [int(value) for module in part.modules() if (value := getattr(module, "num_queries", None))]
    return max(1, max(queries, default=0) or visual) + max(texts, default=0)
