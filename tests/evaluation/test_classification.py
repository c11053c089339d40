"""Accuracy by class, gaps between a split and its shifted versions, and what is refused."""

from collections.abc import Callable

import pytest
import torch
from classes_toy import Toy, TwoTables, shown, tools_of
from torch import Tensor, nn

from vlmtrain.evaluation.classification import Classification, Classifier, accuracy


class Says(Classifier):
    """The class of image n is number n + `more`."""

    def __init__(self, more: int) -> None:
        self.more = more

    def prepare(self, model, data, tools) -> Callable[[Tensor], Tensor]:
        return lambda queries: queries[:, 0].roll(self.more, dims=1)


def model_of(count: int) -> TwoTables:
    return TwoTables(torch.eye(count).unsqueeze(1), count)


def test_a_tie_and_a_score_that_is_no_number_lose() -> None:
    logits = torch.tensor([[1.0, 1.0], [torch.nan, 0.0], [0.0, torch.nan], [2.0, 1.0]])
    assert accuracy(logits, torch.tensor([0, 0, 0, 0])) == 1 / 4


def test_t17_the_gap_is_of_the_base_and_the_mean_of_its_shifted_versions() -> None:
    names = ["a", "b", "c", "d"]
    all_right = shown(*enumerate(names))
    half = shown((0, "a"), (1, "b"), (2, "a"), (3, "b"))
    none = shown((0, "b"), (1, "c"), (2, "d"), (3, "a"))
    data = Toy(names, [], {"test": all_right, "test/noise": half, "test/blur": none, "other": half})
    by: dict[str, Classifier] = {"plain": Says(0), "one_more": Says(1)}
    found = Classification(data, by, reference="plain")(model_of(4), {}, tools_of()).metrics
    assert found["test/plain_gap"] == pytest.approx(1 - (0.5 + 0) / 2)
    assert found["test/one_more_gap"] == pytest.approx(0 - (0 + 1) / 2)
    assert found["test/one_more_gap_reduction"] == pytest.approx(1 - -0.5 / 0.75)
    assert "test/plain_gap_reduction" not in found and "other/plain_gap" not in found
    alone = Classification(data, by, reference="one_more", splits=["test", "test/blur"])(model_of(4), {}, tools_of())
    assert alone.metrics["test/plain_gap"] == 1.0
    assert "test/plain_gap_reduction" not in alone.metrics, "the reference loses nothing"


def test_limit_and_empty_splits(caplog: pytest.LogCaptureFixture) -> None:
    data = Toy(["a", "b"], [], {"test": shown((0, "a"), (0, "b")), "empty": []})
    found = Classification(data, {"plain": Says(0)}, limit=1)(model_of(2), {}, tools_of()).metrics
    assert found["test/plain_accuracy"] == 1.0 and found["test/num_images"] == 1
    assert "empty/plain_accuracy" not in found and "'empty' holds no images" in caplog.text


def test_what_cannot_be_is_refused() -> None:
    data = Toy(["a"], [], {"test": shown((0, "z"))})
    by: dict[str, Classifier] = {"plain": Says(0)}
    with pytest.raises(ValueError, match="is of class 'z'"):
        Classification(data, by)(model_of(1), {}, tools_of())
    with pytest.raises(ValueError, match=r"needs a model with .*embed_text"):
        Classification(data, by).check(nn.Linear(1, 1), {})
    with pytest.raises(ValueError, match="no evaluation split 'tset'"):
        Classification(data, by, splits=["tset"]).check(model_of(1), {})
    with pytest.raises(ValueError, match="none of the classifiers plain"):
        Classification(data, by, reference="probe")
    for wrong in ({"by": {}}, {"splits": []}, {"limit": 0}):
        with pytest.raises(ValueError, match="Classification wants"):
            Classification(**{"data": data, "by": by, **wrong})
