"""How processes share what a stage keeps in memory, in numbers: what an engine says of itself before it runs."""

from dataclasses import dataclass
from enum import Enum

UNITS_AT_ONCE = 2  # of weights: the one that runs, and the next one, which is on its way


class Extent(Enum):
    """How much of the weights, or of their gradients, is on a process at once beside what it holds."""

    NOTHING = "nothing"
    UNITS = "units"  # one after the other (vlmtrain.nn.wrapping)
    EVERYTHING = "everything"


@dataclass(frozen=True)
class Sharing:
    """Among how many processes one copy of each thing is spread; 1: every process has all of it.

    `gathered`: weights that lie in parts, as far as they are whole while a step runs; what is in no unit always is.
    `buffered`: gradients, in the buffer that they are added up in.  `has_masters`: second copies of trained weights lie
    with the moments.  `offloads`: things that rest in the CPU's memory: "moments", "weights" (of those in parts) and
    "gradients".
    """

    trained: int = 1
    frozen: int = 1
    gradients: int = 1
    moments: int = 1
    gathered: Extent = Extent.NOTHING
    buffered: Extent = Extent.NOTHING
    has_masters: bool = False
    offloads: frozenset[str] = frozenset()
