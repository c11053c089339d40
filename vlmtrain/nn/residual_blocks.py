"""Finding the residual blocks of a transformers model."""

from torch import nn


def residual_blocks(stack: nn.Module) -> nn.ModuleList:
    """The one longest list of modules of one kind in `stack`: `layers`, `block`, `h`... whatever it is called."""
    lists = [m for m in stack.modules() if isinstance(m, nn.ModuleList) and _are_of_one_kind(m)]
    longest = max(lists, key=len, default=None)
    rivals = [m for m in lists if longest is not None and len(m) == len(longest)]
    if longest is None or len(rivals) > 1:
        raise ValueError(f"Cannot tell which of {len(rivals)} module lists in {type(stack).__name__} holds its layers.")
    return longest


def _are_of_one_kind(modules: nn.ModuleList) -> bool:
    """One class, or, as in hybrids of attention and recurrence, classes that are more to each other than modules."""
    classes = [type(module) for module in modules]
    if len(set(classes)) <= 1:
        return bool(classes)
    shared = set.intersection(*(set(each.__mro__) for each in classes))
    return bool(shared - set(nn.Module.__mro__))
