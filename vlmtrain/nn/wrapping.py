"""Which modules of a model are units for those who keep weights in parts and put them together when they are needed."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class HasUnits(Protocol):
    """A part that says which of its modules are units: entered by a call only, by every micro-batch alike, and with
    weights that nobody else reads.  Layers of transformers are; layers that are run in pieces are not."""

    def wrapping_units(self) -> Iterable[nn.Module]:
        """The units, in the order in which they run."""


def find_units(model: nn.Module) -> list[nn.Module]:
    """All units in `model`, each once, none inside another."""
    units: dict[int, nn.Module] = {}
    for part in model.modules():
        if isinstance(part, HasUnits):
            units |= {id(unit): unit for unit in part.wrapping_units()}
    inside = {id(module) for unit in units.values() for module in unit.modules() if module is not unit}
    return [unit for key, unit in units.items() if key not in inside]


def find_outside(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are in no unit, each once."""
    inside = {id(parameter) for unit in find_units(model) for parameter in unit.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in inside]


def count_largest_unit(model: nn.Module) -> int:
    """Numbers of the unit that has the most; of the whole model where there are no units."""
    units = find_units(model) or [model]
    return max(sum(parameter.numel() for parameter in unit.parameters()) for unit in units)
