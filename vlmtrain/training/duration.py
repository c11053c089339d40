"""Durations carry their unit: 2000 steps are `2000` or "2000 steps", three percent of a run are "3 percent"."""

import re


def steps_of(duration: int | str, max_steps: int) -> int:
    """How many of `max_steps` steps `duration` stands for."""
    if isinstance(duration, int) and not isinstance(duration, bool):
        number, unit = float(duration), "steps"
    else:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(steps?|percent|%)?\s*", str(duration))
        if found is None:
            raise ValueError(f"duration {duration!r} is no duration; write 2000, '2000 steps' or '3 percent'")
        number, unit = float(found[1]), found[2] or "steps"
    steps = round(number * max_steps / 100) if unit in ("percent", "%") else int(number)
    if not 0 <= steps <= max_steps:
        raise ValueError(f"duration {duration!r} is {steps} steps, but the stage has {max_steps}; give fewer")
    return steps
