"""An objective whose weight changes in the course of a stage."""

from collections.abc import Sequence
from itertools import pairwise

from vlmtrain.objectives.around import Around
from vlmtrain.objectives.base import Objective


class Scheduled(Around):
    """`objective` with its weights times a factor that goes linearly from point to point.

    Before the first point and after the last the factor is theirs.  Where it is 0 the objective is computed and logged
    all the same; one that should not be computed at all has weight 0.  A function of the step alone, so that a run that
    was interrupted goes on with the factor it had.

    Args:
        objective: any, a mixture too.
        points: pairs of a step and the factor there, steps rising: [[0, 0.0], [1000, 1.0]] is a ramp.
    """

    def __init__(self, objective: Objective, points: Sequence[Sequence[float]]) -> None:
        super().__init__(objective)
        if not points or any(len(point) != 2 for point in points):
            raise ValueError(f"points is {points}; give pairs of a step and a factor, [[0, 0.0], [1000, 1.0]]")
        steps = [step for step, _ in points]
        if steps[0] < 0 or any(after <= before for before, after in pairwise(steps)):
            raise ValueError(f"the steps of points are {steps}; give steps from 0 on, each larger than the one before")
        if any(factor < 0 for _, factor in points):
            raise ValueError(f"points is {points}; a factor below 0 would make the model worse at it; give 0 or more")
        self.points = [(float(step), float(factor)) for step, factor in points]
        self.begin(0)

    def begin(self, step: int) -> None:
        super().begin(step)
        self._factor = self.factor(step)

    def factor(self, step: float) -> float:
        """At `step`."""
        first, last = self.points[0], self.points[-1]
        if step <= first[0]:
            return first[1]
        for (start, low), (end, high) in pairwise(self.points):
            if step <= end:
                return low + (high - low) * (step - start) / (end - start)
        return last[1]

    def weights(self) -> dict[str, float]:
        return {term: weight * self._factor for term, weight in super().weights().items()}
