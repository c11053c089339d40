"""Why training may stop before its last step.  Each reason carries the exit code that the command ends with."""

HUNG = 8  # of a process that its watchdog ended


class TrainingStopped(Exception):
    """Training ended early, on purpose; what was published before stays valid."""

    exit_code = 1


class NonFiniteTraining(TrainingStopped):
    """Loss, gradient or weights are NaN or infinite, too often in a row or at the moment of saving."""

    exit_code = 3


class SavingFails(TrainingStopped):
    """Several checkpoints in a row could not be written."""

    exit_code = 4


class Preempted(TrainingStopped):
    """A signal asked for the end; the state was saved first."""

    exit_code = 143


class RanksDiverged(TrainingStopped):
    """Ranks hold different weights, and there is no checkpoint to go back to."""

    exit_code = 11
