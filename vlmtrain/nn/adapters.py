"""What is added to a pretrained part so that it can learn while it stays frozen itself, and where in it that lies.

A module with `is_adapter = True` owns added parameters; below it, a module with `is_adapter = False` is the pretrained
one that it stands around (LoRA around a projection, new rows beside an embedding).  Whatever trains, saves or counts
asks here, so that no part needs to be known by name.
"""

from collections.abc import Callable, Collection

from torch import nn


def mark_adapter(added: nn.Module, pretrained: nn.Module | None = None) -> None:
    """Call the parameters of `added` added ones, but not those of the module `pretrained` inside it."""
    added.is_adapter = True  # type: ignore[assignment]
    if pretrained is not None:
        pretrained.is_adapter = False  # type: ignore[assignment]


def is_adapter(module: nn.Module, above: bool = False) -> bool:
    """Whether the parameters of `module` are added ones; `above`: whether those of the module around it are."""
    return bool(module.__dict__.get("is_adapter", above))


def adapter_names(module: nn.Module, prefix: str = "", above: bool = False) -> set[str]:
    """Names of all added parameters and buffers in `module`."""
    here = is_adapter(module, above)
    own = {**module._parameters, **module._buffers} if here else {}
    found = {prefix + name for name, value in own.items() if value is not None}
    for name, child in module.named_children():
        found |= adapter_names(child, f"{prefix}{name}.", here)
    return found


def has_frozen_base(module: nn.Module, trained: set[int] | None = None) -> bool:
    """Whether `module` has parameters and none trains but added ones.

    `trained`: ids of the parameters that train at some time; None: those that do now.
    """
    added = adapter_names(module)
    pretrained = [value for name, value in module.named_parameters() if name not in added]
    return bool(pretrained) and not any(
        value.requires_grad if trained is None else id(value) in trained for value in pretrained
    )


def plain_names(module: nn.Module, prefix: str = "", plain: str = "") -> dict[str, str]:
    """Name of every parameter and buffer -> its name without what stands around it.

    So a weight has one name with and without adapters, and what a stage learned without them fits a model with them.
    """
    names = {prefix + name: plain + name for name in [*module._parameters, *module._buffers]}
    for name, child in module.named_children():
        is_inside = child.__dict__.get("is_adapter") is False
        names |= plain_names(child, f"{prefix}{name}.", plain if is_inside else f"{plain}{name}.")
    return names


def measure_after_hand_over(module: nn.Module, measure: Callable[[], None]) -> None:
    """Say that `measure` sets the parameters of `module` from pretrained or added ones beside it."""
    module.measure = measure  # type: ignore[assignment]


def follow_hand_over(module: nn.Module, given: Collection[str]) -> None:
    """Measure anew what was measured on weights that a hand-over has replaced; not what it gave itself.

    `given`: plain names.
    """
    plain = plain_names(module)
    for name, part in module.named_modules():
        measure = part.__dict__.get("measure")
        if measure is not None and not any(plain[f"{name}.{own}"] in given for own, _ in part.named_parameters()):
            measure()
