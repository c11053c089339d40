"""The formulas, on made-up numbers."""

import pytest

from vlmtrain.evaluation.robustness import accuracy_gap, gap_reduction


def test_t17_gap_and_reduction() -> None:
    assert accuracy_gap(0.76, [0.70, 0.60, 0.50]) == pytest.approx(0.16)
    assert accuracy_gap(0.5, [0.7]) == pytest.approx(-0.2)
    assert gap_reduction(0.1, 0.4) == pytest.approx(0.75)
    assert gap_reduction(0.0, 0.4) == 1.0
    assert gap_reduction(0.6, 0.4) == pytest.approx(-0.5)


def test_there_is_no_gap_without_shifts_and_no_share_of_none() -> None:
    with pytest.raises(ValueError, match="at least one shifted"):
        accuracy_gap(0.5, [])
    assert gap_reduction(0.1, 0.0) is None and gap_reduction(0.1, -0.1) is None
