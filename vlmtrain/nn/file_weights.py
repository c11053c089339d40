"""Pretrained weights that stay in their files, mapped into memory, until whoever lays a model out takes them out.

A mapped weight costs address space and pages that all processes of a machine share, as long as nobody writes to it or
changes its number format.  So a format that is asked for is noted here, and given to a weight when it is taken out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

NOTE = "format_when_taken_out"  # in the dict of a parameter
_leaving: ContextVar[bool] = ContextVar("leaving", default=False)


@contextmanager
def weights_left_in_files() -> Iterator[None]:
    """A block in which pretrained parts may leave their weights in their files; `take_out` belongs behind it."""
    token = _leaving.set(True)
    try:
        yield
    finally:
        _leaving.reset(token)


def leaves_weights_in_files() -> bool:
    return _leaving.get()


def is_exact(narrow: torch.dtype, wide: torch.dtype) -> bool:
    """Whether every number of format `narrow` is one of format `wide`, so that changing later changes nothing."""
    return torch.promote_types(narrow, wide) == wide


def note_format(parameter: nn.Parameter, number_format: torch.dtype) -> None:
    """Say that `parameter` lies in a file, and in which format it shall be when it is taken out."""
    assert is_exact(parameter.dtype, number_format), "whoever reads it meanwhile would read other numbers"
    vars(parameter)[NOTE] = number_format


def is_in_file(parameter: nn.Parameter) -> bool:
    return NOTE in vars(parameter)


def format_of(parameter: nn.Parameter) -> torch.dtype:
    """The format that it has, or will have."""
    return vars(parameter).get(NOTE, parameter.dtype)


def set_format(parameter: nn.Parameter, number_format: torch.dtype) -> None:
    """Now, or when it is taken out of its file."""
    if is_in_file(parameter):
        vars(parameter)[NOTE] = number_format
    else:
        parameter.data = parameter.data.to(number_format)


def take_out(parameter: nn.Parameter, device: torch.device) -> None:
    """Hold it whole on `device`, in the format asked for."""
    parameter.data = parameter.data.to(device, vars(parameter).pop(NOTE, parameter.dtype))


def take_all_out(module: nn.Module, device: torch.device) -> None:
    """Hold all parameters of `module` so; whatever else it has moves there as well."""
    for parameter in module.parameters():
        if is_in_file(parameter):
            take_out(parameter, device)
    module.to(device)


@torch.no_grad()
def overwrite(held: Tensor, value: Tensor) -> None:
    """Copy `value` into a parameter or buffer; what lies in a file is replaced, in the format asked for."""
    if isinstance(held, nn.Parameter) and is_in_file(held):
        held.data = value.to(held.device, vars(held).pop(NOTE), copy=True)
    else:
        held.copy_(value)


@contextmanager
def formats_as_asked(module: nn.Module) -> Iterator[None]:
    """A block in which weights in files have format and shape as when they are taken out, and are all zero.

    For who builds beside a weight what shall have its format, and does not read it.
    """
    in_files = [parameter for parameter in module.parameters() if is_in_file(parameter)]
    values = [parameter.data for parameter in in_files]
    for parameter in in_files:
        parameter.data = torch.zeros((), dtype=format_of(parameter), device=parameter.device).expand(parameter.shape)
    try:
        yield
    finally:
        for parameter, value in zip(in_files, values, strict=True):
            parameter.data = value
