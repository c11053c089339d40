"""Parts that begin to train in the middle of a stage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmtrain.training.trainability import ADAPTATION

Rate = float | None | dict[str, Any]  # dict: {from_step: optimizer steps from 0, rate: multiple of the learning rate}


@dataclass(frozen=True)
class Thawing:
    """The rates of a stage at each step: a part with `from_step` is frozen in every sense before it.

    A pure function of the step, so that nothing of it has to be saved.
    """

    rates: Mapping[str, Rate]

    def at(self, step: int) -> dict[str, float | None]:
        """Part or pattern -> multiple of the learning rate in optimizer step `step`, None where it is frozen."""
        return {
            key: (rate["rate"] if step >= rate["from_step"] else None) if isinstance(rate, dict) else rate
            for key, rate in self.rates.items()
        }

    def at_the_end(self) -> dict[str, float | None]:
        """When all that ever trains does."""
        return self.at(max(self.starts(), default=0))

    def starts(self) -> list[int]:
        """The steps at which something begins to train."""
        return sorted({int(rate["from_step"]) for rate in self.rates.values() if isinstance(rate, dict)})

    def phase(self, step: int) -> int:
        """How many of these lie at or before `step`."""
        return sum(start <= step for start in self.starts())


def thawing_of(rates: Mapping[str, Rate], max_steps: int) -> Thawing:
    """Of a stage; where no step is taken everything is frozen, what was added to parts as well."""
    return Thawing(rates if max_steps else dict.fromkeys([*rates, ADAPTATION]))
