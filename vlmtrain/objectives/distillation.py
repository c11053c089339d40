"""How much of a target is the momentum teacher's answer (ALBEF, Li et al. 2021, section 3.3)."""


class Distillation:
    """A share that grows along a line from 0, while the teacher has not learned much, and stays.

    Args:
        share: of the teacher's answers in the targets; 0 turns them off.
        ramp_steps: over which that share is reached (ALBEF: one epoch, BLIP: two).
    """

    def __init__(self, share: float, ramp_steps: int) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"distillation is {share}; give a share from 0 to 1 (0.4 in ALBEF and BLIP)")
        if ramp_steps < 0:
            raise ValueError(f"ramp_steps is {ramp_steps}; give 0 (no ramp) or more steps")
        self.share = share
        self.ramp_steps = ramp_steps

    def share_at(self, step: int) -> float:
        """How much of the targets is the teacher's at `step`."""
        return self.share * min(1.0, step / self.ramp_steps) if self.ramp_steps else self.share
