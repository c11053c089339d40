"""What a stage takes: parameters by part (exact), bytes of memory and disk (weights exact, activations roughly)."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

BYTES = {"fp32": 4, "bf16": 2}
MASTER_BYTES = 4  # trained weights, their gradients and each of Adam's two moments are fp32
KEPT_PER_OUTPUT = 2.0  # activations that backward keeps per output of a linear layer: norms, activation functions, ...


@dataclass(frozen=True)
class PartCost:
    """One child of a model; `heads` stands for the parameters that are the model's own."""

    name: str
    source: str
    parameters: int
    trainable: int
    precision: str


@dataclass(frozen=True)
class MemoryCost:
    """Bytes of one process."""

    weights: int
    gradients: int
    optimizer: int
    activations: int  # rough: within a factor of two

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def list_part_costs(model: nn.Module, precision: Literal["fp32", "bf16"]) -> list[PartCost]:
    """The parts in order, each parameter counted once.  Wholly frozen parts are held in `precision`, others in fp32."""
    seen: set[int] = set()
    costs = []
    for name, child in model.named_children():
        parameters = [parameter for parameter in child.parameters() if id(parameter) not in seen]
        seen.update(id(parameter) for parameter in parameters)
        if parameters:
            trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
            total = sum(parameter.numel() for parameter in parameters)
            source = getattr(child, "source", "random")
            costs.append(PartCost(name, str(source), total, trainable, "fp32" if trainable else precision))
    own = list(model.parameters(recurse=False))
    if own:
        trainable = sum(parameter.numel() for parameter in own if parameter.requires_grad)
        costs.append(PartCost("heads", "random", sum(parameter.numel() for parameter in own), trainable, "fp32"))
    return costs


def estimate_memory(
    model: nn.Module, precision: Literal["fp32", "bf16"], micro_batch: int, is_checkpointing: bool = False
) -> MemoryCost:
    """Bytes of weights, gradients, Adam's moments and activations of one process that trains `micro_batch` samples."""
    parts = list_part_costs(model, precision)
    trainable = sum(part.trainable for part in parts)
    weights = sum(part.parameters * BYTES[part.precision] for part in parts)
    activations = _count_kept(model, is_checkpointing) * micro_batch * BYTES[precision]
    return MemoryCost(weights, MASTER_BYTES * trainable, 2 * MASTER_BYTES * trainable, int(activations))


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
