"""Finding the residual blocks of a transformers model."""

from torch import nn


def residual_blocks(stack: nn.Module) -> nn.ModuleList:
    """The one longest list of same-class modules in `stack`: `layers`, `block`, `h`... whatever it is called."""
    lists = [m for m in stack.modules() if isinstance(m, nn.ModuleList) and len({type(x) for x in m}) == 1]
    longest = max(lists, key=len, default=None)
    rivals = [m for m in lists if longest is not None and len(m) == len(longest)]
    if longest is None or len(rivals) > 1:
        raise ValueError(f"Cannot tell which of {len(rivals)} module lists in {type(stack).__name__} holds its layers.")
    return longest
