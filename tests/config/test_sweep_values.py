"""Values of a sweep's keys: typed with commas, as ranges, and as parts of a folder's name."""

from typing import Any

import pytest

from vlmtrain.config.sweep_values import Range, name_value, read_values, split_typed


def test_what_has_several_values_is_told_from_what_has_one() -> None:
    fixed, varied = split_typed(
        ["experiment=clip", "optimizer.lr=1e-3,1e-4", "seed=range(0,3)", "model/connector=mlp,linear", "a=[1,2]"]
    )
    assert fixed == ["experiment=clip", "a=[1,2]"]
    assert varied == {
        "optimizer.lr": ["0.001", "0.0001"],
        "seed": ["0", "1", "2"],
        "model/connector": ["mlp", "linear"],
    }


def test_a_typed_interval_is_a_range() -> None:
    _, varied = split_typed(["optimizer.lr=tag(log, interval(1e-5, 1e-2))"])
    assert read_values("optimizer.lr", varied["optimizer.lr"], {}) == Range(1e-5, 1e-2, True)


def test_what_cannot_be_listed_says_what_can() -> None:
    with pytest.raises(ValueError, match=r"a=glob\(\*\): several values are a=a,b,c"):
        split_typed(["a=glob(*)"])


@pytest.mark.parametrize(
    ("key", "value", "is_group", "name"),
    [
        ("optimizer.lr", "0.001", False, "lr_0.001"),
        ("model/connector", "mlp", True, "mlp"),
        ("data.path", "/a b/c,d=e", False, "path_a-b-c-d-e"),
        ("model.tap", "[-2, -5]", False, "tap_-2--5"),
    ],
)
def test_names_are_fit_for_a_folder_and_a_command_line(key: str, value: str, is_group: bool, name: str) -> None:
    assert name_value(key, value, is_group) == name


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"low": 1}, "a range is"),
        ({"low": 2, "high": 1}, "low below high"),
        ({"low": 0, "high": 1, "log": True}, "low above 0"),
        ({"low": 1, "high": 2, "log": True, "step": 1}, "no step"),
        ({"low": "a", "high": 2}, "'a' is no number"),
        ({"low": 1, "high": 2, "lgo": True}, "a range is"),
        ({"low": 1, "high": 2, "log": "yes"}, "a range is"),
    ],
)
def test_a_wrong_range_is_told(chosen: Any, told: str) -> None:
    with pytest.raises(ValueError, match=f"vary optimizer.lr: .*{told}"):
        read_values("optimizer.lr", chosen, {})


def test_yaml_reads_1e_5_as_a_text_and_it_is_a_number_all_the_same() -> None:
    assert read_values("a", {"low": "1e-5", "high": "1e-2"}, {}) == Range(1e-5, 1e-2)
    assert read_values("a", {"low": 1, "high": 8, "step": 1}, {}) == Range(1, 8, False, 1)
