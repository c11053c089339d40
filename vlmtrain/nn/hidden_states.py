"""Changing what flows between the layers of a model that somebody else wrote, without touching its modules."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

KEYWORD = "hidden_states"  # where transformers passes them by name


def change_before(layer: nn.Module, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """From now on `layer` receives `change(hidden)` [B, T, D] in place of its hidden states, however they are passed.

    A forward pre-hook: `layer` keeps its class, its parameter names and its checkpoints, and gradient checkpointing of
    its `forward` does not run `change` twice.  Give a bound method or a `partial` of one: a deep copy of a model then
    calls its own copy, where a closure would call the original.
    """
    return layer.register_forward_pre_hook(partial(_apply, change), with_kwargs=True)


def _apply(
    change: Callable[[Tensor], Tensor], layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (change(args[0]), *args[1:]), kwargs
    assert KEYWORD in kwargs, f"{type(layer).__name__} is called with neither a positional argument nor {KEYWORD}"
    return args, {**kwargs, KEYWORD: change(kwargs[KEYWORD])}
