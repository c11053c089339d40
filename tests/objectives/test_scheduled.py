"""Weights that change with the step: the factor where it should be, and nothing of the objective lost on the way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.language_modeling import LanguageModeling
from vlmtrain.objectives.matching import ImageTextMatching
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.scheduled import Scheduled

RAMP = [[10, 0.0], [20, 1.0], [40, 0.5]]
POINTS = st.lists(
    st.tuples(st.integers(0, 1000), st.floats(0, 10)), min_size=1, max_size=6, unique_by=lambda point: point[0]
).map(sorted)


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.0), (10, 0.0), (15, 0.5), (20, 1.0), (30, 0.75), (40, 0.5), (1000, 0.5)]
)
def test_the_factor_goes_from_point_to_point(step, factor):
    scheduled = Scheduled(LanguageModeling(2.0), RAMP)
    scheduled.begin(step)
    assert list(scheduled.weights().values()) == [pytest.approx(2.0 * factor)]


@given(POINTS, st.integers(0, 1200))
@settings(deadline=None)
def test_it_meets_every_point_and_never_leaves_its_neighbours(points, step):
    scheduled = Scheduled(LanguageModeling(), points)
    assert all(scheduled.factor(where) == pytest.approx(factor) for where, factor in points)
    before = [factor for where, factor in points if where <= step][-1:] or [points[0][1]]
    after = [factor for where, factor in points if where >= step][:1] or [points[-1][1]]
    low, high = min(before + after), max(before + after)
    assert low - 1e-9 <= scheduled.factor(step) <= high + 1e-9


@pytest.mark.parametrize("size", [2, 6])
def test_in_a_mixture_a_term_pulls_as_much_as_its_factor_says(make_model, batch_of, step_of, size):
    """However the batch is cut: matching surveys the whole one, and its survey goes through as well."""
    model, batch = make_model(), batch_of(6)
    mixed = Mixture({"captioning": LanguageModeling(), "matching": Scheduled(ImageTextMatching(), RAMP)})
    mixed.begin(15)
    assert mixed.weights() == {"captioning": 1.0, "matching": 0.5}
    found = step_of(model, mixed, batch, size)
    constant = Mixture({"captioning": LanguageModeling(), "matching": ImageTextMatching(0.5)})
    wanted = step_of(model, constant, batch, size)
    assert found.gradients.keys() == wanted.gradients.keys()
    for name, gradient in wanted.gradients.items():
        torch.testing.assert_close(found.gradients[name], gradient, msg=name)


def test_what_is_scheduled_down_to_nothing_is_still_told(make_model, batch_of, step_of):
    model, batch = make_model(), batch_of(4)
    objective = Mixture({"captioning": LanguageModeling(), "contrastive": Scheduled(Contrastive(), RAMP)})
    objective.begin(3)
    assert objective.weights()["contrastive"] == 0.0
    assert step_of(model, objective, batch).totals["contrastive"] > 0


def test_it_wants_of_the_model_what_the_objective_wants():
    with pytest.raises(ValueError, match="Contrastive needs a model with"):
        Scheduled(Contrastive(), RAMP).require(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], r"points is \[\]; give pairs of a step and a factor"),
        ([[0, 1.0, 2.0]], "give pairs of a step and a factor"),
        ([[5, 1.0], [5, 0.0]], r"the steps of points are \[5, 5\]; give steps from 0 on"),
        ([[-1, 1.0]], r"the steps of points are \[-1\]"),
        ([[0, -1.0]], "a factor below 0"),
    ],
)
def test_points_that_make_no_schedule_are_told(points, message):
    with pytest.raises(ValueError, match=message):
        Scheduled(LanguageModeling(), points)
