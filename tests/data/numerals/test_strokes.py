"""Strokes through their points."""

import numpy as np
import pytest

from vlmtrain.data.numerals.strokes import NAMES, WAYS, smooth


def test_every_numeral_can_be_written_and_stays_on_the_paper() -> None:
    assert len(WAYS) == len(NAMES) == 10
    for ways in WAYS:
        for stroke in (stroke for way in ways for stroke in way):
            curve = smooth(np.array(stroke, dtype=np.float32))
            assert curve.min() > -0.06 and curve.max() < 1.06


def test_a_curve_goes_through_its_points_and_a_closed_one_has_no_corner() -> None:
    points = np.array([(0.0, 0.0), (0.5, 1.0), (1.0, 0.0), (0.0, 0.0)], dtype=np.float32)
    curve = smooth(points, steps=10)
    np.testing.assert_allclose(curve[::10], points, atol=1e-6)
    leaves, arrives = curve[1] - curve[0], curve[-1] - curve[-2]
    assert leaves @ arrives / np.linalg.norm(leaves) / np.linalg.norm(arrives) > 0.8
    assert smooth(points[:2]) == pytest.approx(points[:2])
