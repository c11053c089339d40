"""Logistic regression on frozen vectors of a few examples."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from classes_toy import Toy, TwoTables, shown, tools_of
from sklearn.linear_model import LogisticRegression

from vlmtrain.evaluation.classification import Classification
from vlmtrain.evaluation.few_shot_probe import FewShotProbe

NAMES = ["a", "b", "c"]


def clustered(per_class: int, num_classes: int = 3, queries: int = 1) -> TwoTables:
    """Image n lies near the axis of class n modulo the classes."""
    generator = torch.Generator().manual_seed(3)
    axes = torch.eye(8)[torch.arange(per_class * num_classes) % num_classes]
    noise = torch.randn(len(axes), queries, 8, generator=generator)
    return TwoTables(axes.unsqueeze(1) + 0.15 * noise, 8)


def numbered(start: int, stop: int, num_classes: int = 3) -> list[Any]:
    return shown(*((number, NAMES[number % num_classes]) for number in range(start, stop)))


def test_t17_four_examples_a_class_are_fitted_and_the_rest_of_training_is_not_looked_at() -> None:
    model = clustered(20)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    mislabelled = shown(*((number, NAMES[(number + 1) % 3]) for number in range(12, 24)))
    data = Toy(NAMES, [*numbered(0, 12), *mislabelled], {"test": numbered(24, 60)})
    found = Classification(data, {"probe": FewShotProbe()})(model, {}, tools_of(5)).metrics
    assert found["test/probe_accuracy"] == 1.0
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("num_classes", [2, 3])
def test_t17_scores_are_those_of_scikit_learn_on_the_same_vectors(num_classes: int) -> None:
    model = clustered(20, num_classes, queries=2).eval()
    data = Toy(NAMES[:num_classes], numbered(0, 4 * num_classes, num_classes), {})
    with torch.no_grad():
        classify = FewShotProbe(4, inverse_penalty=3.0).prepare(model, data, tools_of())
        vectors = model.images.mean(dim=1)
        scores = classify(model.images)
    first = vectors[: 4 * num_classes].numpy()
    probe = LogisticRegression(C=3.0, max_iter=1000).fit(first, np.arange(len(first)) % num_classes)
    assert scores.argmax(1).tolist() == probe.predict(vectors.numpy()).tolist()
    if num_classes > 2:
        np.testing.assert_allclose(scores.numpy(), probe.decision_function(vectors.numpy()), atol=1e-5)


def test_too_few_examples_are_told_by_name() -> None:
    data = Toy(NAMES, numbered(0, 11), {"test": numbered(12, 15)})
    with pytest.raises(ValueError, match="4 examples of every class; of c the data set"):
        Classification(data, {"probe": FewShotProbe(4)})(clustered(5), {}, tools_of())
    assert FewShotProbe(3)._examples(clustered(5), data, tools_of())[1].tolist() == [0, 1, 2] * 3


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Toy(NAMES, numbered(0, 12), {"test": numbered(12, 15)})
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ValueError, match=r"vlmtrain\[evaluation\]"):
        Classification(data, {"probe": FewShotProbe()}).check(clustered(5), {})
    with pytest.raises(ValueError, match="shots >= 1"):
        FewShotProbe(0)
