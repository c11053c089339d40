"""Low-rank adaptation of a language model or an encoder, through peft."""

from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from vlmtrain.nn.adapters import mark_adapter, measure_after_hand_over
from vlmtrain.nn.file_weights import formats_as_asked

Part = TypeVar("Part", bound=nn.Module)


def with_lora(
    part: Part,
    rank: int = 8,
    alpha: float = 16.0,
    dropout: float = 0.0,
    target_modules: str | list[str] = "all-linear",
    dora: bool = False,
) -> Part:
    """`part` with adapters beside its linear layers; as it was to the bit until they train.

    LoRA (Hu et al. 2021, arXiv 2106.09685): W x + alpha / rank * B A x with B = 0 at the start.  The adapters are fp32,
    whatever the part is held in; they alone train (at `trainable.adaptation`), are saved, and drop out.

    Args:
        part: changed in place.
        rank: of the update.
        alpha: over `rank`, the factor of the update.
        dropout: before A, in training.
        target_modules: ends of the names of layers to adapt, a regular expression of whole names, or "all-linear": all
            but the output head.
        dora: learn the length of every output apart from its direction (Liu et al. 2024, arXiv 2402.09353).
    """
    if rank < 1:
        raise ValueError(f"LoRA of rank {rank} adapts nothing; give rank=8, say, or choose model/adaptation=none.")
    try:
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds: only where it is asked for
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError as error:
        raise ValueError(f"LoRA needs peft ({error}): pip install 'vlmtrain[lora]'.") from error
    is_training = part.training
    inner = _pretrained_model(part)
    choices = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=target_modules, use_dora=dora, bias="none"
    )
    with formats_as_asked(inner):  # adapters are drawn, and rounded, in the format of the weight beside them
        inject_adapter_in_model(choices, inner)
    for module in list(inner.modules()):
        if isinstance(module, BaseTunerLayer):
            _prepare(module)
        if isinstance(module, nn.MultiheadAttention) and isinstance(module.out_proj, BaseTunerLayer):
            raise ValueError(
                f"{type(part).__name__} reads the weights of nn.MultiheadAttention past any adapter; "
                "name other target_modules, for example those of its feed-forward layers."
            )
    return part.train(is_training)


def merge_lora(part: Part) -> Part:
    """`part` with every adapter added to the weight beside it and gone; in fp32, as bf16 would round updates away."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = {name: module for name, module in part.named_modules() if isinstance(module, BaseTunerLayer)}
    if not adapted:
        raise ValueError(f"{type(part).__name__} has no adapters to merge.")
    codes = [name for name, module in adapted.items() if not module.get_base_layer().weight.is_floating_point()]
    if codes:
        raise ValueError(
            f"{len(codes)} layers are held in codes ({codes[0]}, ...), which would round the update away; build the "
            "language model with precision=fp32 and merge there."
        )
    part.float()
    for name, module in adapted.items():
        module.merge(safe_merge=True)
        above, _, own = name.rpartition(".")
        base = module.get_base_layer()
        del base.is_adapter
        setattr(part.get_submodule(above), own, base)
    return part


def _pretrained_model(part: nn.Module) -> nn.Module:
    """The model of transformers inside, whose head and architecture peft knows; the part itself where there is none."""
    from transformers import PreTrainedModel

    return next((module for module in part.modules() if isinstance(module, PreTrainedModel)), part)


def _prepare(layer: nn.Module) -> None:
    """fp32 for what is added, and marks that tell it from what was there."""
    base = layer.get_base_layer()  # type: ignore[operator]
    mark_adapter(layer, base)
    for name, child in layer.named_children():
        if name != "base_layer":
            child.float()
    for adapter, magnitude in layer.lora_magnitude_vector.items():  # type: ignore[union-attr, operator]
        measure_after_hand_over(magnitude, partial(_measure, layer, adapter))
        # peft measured it in the precision of the base; training measures in fp32, and both must agree at the start
        magnitude.measure()


def _measure(layer: Any, adapter: str) -> None:
    """DoRA's lengths: of the rows of W + alpha / rank * B A as they are now, so that the layer does what that does."""
    magnitude = layer.lora_magnitude_vector[adapter]
    weight = magnitude.weight
    with torch.no_grad():
        magnitude.update_layer(
            base_layer=layer.get_base_layer(),
            lora_A=layer.lora_A[adapter].weight,
            lora_B=layer.lora_B[adapter].weight,
            scaling=layer.scaling[adapter],
        )
        measured, magnitude.weight = magnitude.weight, weight  # peft makes a new parameter, which nobody knows
        weight.copy_(measured)
