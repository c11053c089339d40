"""What is lost when images are shifted away from those that a classifier knows, and how much less than elsewhere."""

from collections.abc import Sequence


def accuracy_gap(base: float, shifted: Sequence[float]) -> float:
    """Accuracy on the base set less the mean accuracy on its shifted versions; below 0 where shifts help."""
    if not shifted:
        raise ValueError("A gap needs the accuracy on at least one shifted set.")
    return base - sum(shifted) / len(shifted)


def gap_reduction(gap: float, reference_gap: float) -> float | None:
    """The share of the reference's gap that is closed: 1 where nothing is lost, below 0 where more is lost.

    CLIP (Radford et al. 2021, arXiv:2103.00020, section 3.3) tells by it how much less of its accuracy a zero-shot
    classifier loses than a classifier trained on the base set.  None where the reference loses nothing.
    """
    return 1 - gap / reference_gap if reference_gap > 0 else None
