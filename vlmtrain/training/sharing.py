"""How processes share what a stage keeps in memory, in numbers: what an engine says of itself before it runs."""

from dataclasses import dataclass
from enum import Enum


class Gathered(Enum):
    """What of the weights that lie in parts is whole on a process while a step runs."""

    NOTHING = "nothing"
    UNITS = "units"  # one after the other, and what is in no unit (vlmtrain.nn.wrapping)
    EVERYTHING = "everything"


@dataclass(frozen=True)
class Sharing:
    """Among how many processes one copy of each thing is spread; 1: every process has all of it.

    `buffered`: numbers of the buffer that gradients are added up in, and never more than there are gradients.
    `has_masters`: second copies of trained weights lie with the moments.  `offloads`: things that rest in the CPU's
    memory: "moments", "weights" (of those in parts) and "gradients".
    """

    trained: int = 1
    frozen: int = 1
    gradients: int = 1
    moments: int = 1
    gathered: Gathered = Gathered.NOTHING
    buffered: int = 0
    has_masters: bool = False
    offloads: frozenset[str] = frozenset()
