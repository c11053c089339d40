"""In which number format is computed, and in which weights are kept: fp32 where they are trained."""

from typing import Literal

import torch
from torch import nn

from vlmtrain.nn.file_weights import format_of, set_format

Resolved = Literal["fp32", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
FORMATS: dict[Resolved, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: Precision) -> Resolved:
    """`auto` is bf16 on a GPU that computes in it, fp32 elsewhere."""
    if precision not in ("auto", *FORMATS):
        raise ValueError(f"precision {precision!r} is unknown; use auto, {', '.join(FORMATS)}")
    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"


def set_weight_precision(model: nn.Module, precision: Resolved) -> None:
    """Master weights of everything trained in fp32; wholly frozen components in `precision`.

    Call it after `set_trainability`.  Autocast would copy frozen fp32 weights to bf16 in every step; weights that
    already are bf16 pass through it.  Buffers (pixel means, rotary frequencies, running statistics) stay as they are,
    and with them batch norms.

    fp16 ends at 65504, so a part that was asked to be held in bf16 stays so, and runs in it.  ValueError where a
    frozen weight does not fit.  To know, every frozen weight is read, also from the file it lies in.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            set_format(parameter, torch.float32)
    for name, component in model.named_children():
        parameters = list(component.parameters())
        if precision != "fp32" and parameters and not any(parameter.requires_grad for parameter in parameters):
            _lower(name, component, FORMATS[precision])


def _lower(component: str, module: nn.Module, number_format: torch.dtype) -> None:
    for path, part in module.named_modules():
        # Batch norms compute in the precision of their running statistics.
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            continue
        for name, parameter in part.named_parameters(recurse=False):
            is_scalar = parameter.dim() == 0  # a temperature costs nothing, and is read exactly
            if is_scalar or not parameter.is_floating_point() or not _may_become(parameter, number_format):
                continue
            if number_format == torch.float16:
                _require_range(".".join(filter(None, (component, path, name))), parameter)
            set_format(parameter, number_format)


def _may_become(parameter: nn.Parameter, number_format: torch.dtype) -> bool:
    """bf16 is held by choice, and has numbers that fp16 has not."""
    return format_of(parameter) != torch.bfloat16 or number_format != torch.float16


def _require_range(name: str, parameter: nn.Parameter) -> None:
    if parameter.is_meta or parameter.numel() == 0:
        return
    lowest, highest = parameter.detach().aminmax()
    largest, end = max(-float(lowest), float(highest)), torch.finfo(torch.float16).max
    if largest > end:
        raise ValueError(
            f"the frozen weight {name} holds a number of size {largest:g}, and fp16 ends at {end:g}; use "
            "trainer.precision=bf16 or fp32, or hold that part in bf16 (its own precision, where it has one)"
        )
