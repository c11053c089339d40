"""In which number format weights are kept: fp32 where they are trained, bf16 where they are only read."""

from typing import Literal

import torch
from torch import nn

from vlmtrain.nn.file_weights import set_format

Precision = Literal["auto", "fp32", "bf16"]


def resolve_precision(precision: Precision) -> Literal["fp32", "bf16"]:
    """`auto` is bf16 on a GPU that computes in it, fp32 elsewhere."""
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision {precision!r} is unknown; use auto, fp32 or bf16")
    if precision != "auto":
        return precision
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"


def set_weight_precision(model: nn.Module, precision: Literal["fp32", "bf16"]) -> None:
    """Master weights of everything trained in fp32; wholly frozen components in `precision`.

    Call it after `set_trainability`.  Autocast would copy frozen fp32 weights to bf16 in every step; weights that
    already are bf16 pass through it.  Buffers (pixel means, rotary frequencies, running statistics) stay as they are,
    and with them batch norms.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            set_format(parameter, torch.float32)
    for component in model.children():
        parameters = list(component.parameters())
        if precision == "bf16" and parameters and not any(parameter.requires_grad for parameter in parameters):
            _lower(component)


def _lower(component: nn.Module) -> None:
    for part in component.modules():
        # Batch norms compute in the precision of their running statistics.
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            continue
        for parameter in part.parameters(recurse=False):
            is_scalar = parameter.dim() == 0  # a temperature costs nothing, and is read exactly
            if parameter.is_floating_point() and not is_scalar:
                set_format(parameter, torch.bfloat16)
