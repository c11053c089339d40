"""Files of conf/sweep/: every setting is a run that composes; what is wrong is named."""

import re
from typing import Any

import pytest

from vlmtrain.config.check import check
from vlmtrain.config.choices import top_groups
from vlmtrain.config.compose import compose
from vlmtrain.config.location import conf_folder, find_groups
from vlmtrain.config.sweep import SweepFile, expand, read_keys, read_sweep
from vlmtrain.config.sweep_values import Range

GROUPS = find_groups([conf_folder()])
SETTINGS = [(name, setting) for name in GROUPS["sweep"] for setting in read_sweep(name).settings]


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_every_setting_is_right(name: str, setting: str) -> None:
    overrides = read_sweep(name).settings[setting]
    composed = compose(overrides)
    check(composed)
    assert composed.config["scale"] == "tiny" and composed.config["stages"]
    assert overrides[0].startswith("experiment="), "its name comes first"


@pytest.mark.parametrize("name", GROUPS["sweep"])
def test_its_header_shows_the_command(name: str) -> None:
    assert f"#   vlmtrain sweep +sweep={name}" in GROUPS["sweep"][name].read_text()


def test_connectors_are_those_of_conf() -> None:
    assert list(read_sweep("connectors").settings) == list(GROUPS["model/connector"])


def test_several_keys_make_every_combination() -> None:
    file = SweepFile(
        ["experiment=x"], {"seed": [0, 1], "optimizer.lr": [1e-3, 2e-3]}, adjust={"seed_1__lr_0.002": ["a=b"]}
    )
    settings = expand(file, GROUPS).settings
    assert list(settings) == ["seed_0__lr_0.001", "seed_0__lr_0.002", "seed_1__lr_0.001", "seed_1__lr_0.002"]
    assert settings["seed_0__lr_0.002"] == ["experiment=x", "seed=0", "optimizer.lr=0.002"]
    assert settings["seed_1__lr_0.002"] == ["experiment=x", "seed=1", "optimizer.lr=0.002", "a=b"]


def test_settings_may_be_listed_by_name() -> None:
    file = SweepFile(["experiment=x"], settings={"small": ["scale=tiny"], "large": []}, adjust={"large": ["seed=2"]})
    assert expand(file, GROUPS).settings == {
        "small": ["experiment=x", "scale=tiny"],
        "large": ["experiment=x", "seed=2"],
    }


def test_a_search_has_a_space_and_no_settings() -> None:
    file = SweepFile(
        [], {"optimizer.lr": {"low": "1e-5", "high": 0.1, "log": True}}, metric="a/b", search={"_target_": "x"}
    )
    sweep = expand(file, GROUPS)
    assert sweep.settings == {} and sweep.space == {"optimizer.lr": Range(1e-5, 0.1, True)}


def test_a_sweep_is_nothing_that_a_run_chooses() -> None:
    assert "sweep" in GROUPS and "sweep" not in top_groups(GROUPS)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ({"vary": {"seed": [0]}}, "common is None"),
        ({"common": [], "vary": {"seed": [0]}, "varies": 1}, "no key 'varies'; did you mean vary?"),
        ({"common": [], "vary": {"model/conector": "all"}}, "model/conector: all wants a group; did you mean"),
        ({"common": [], "vary": {"seed": 3}}, "seed: got 3; give a list"),
        ({"common": [], "vary": {"seed": [0]}, "as_much_as": "1"}, "'1' is no setting"),
        ({"common": [], "vary": {"seed": [0]}, "adjust": {"2": ["a=b"]}}, "'2' is no setting"),
        ({"common": [], "vary": {"seed": [0]}, "adjust": {"seed_0": "a=b"}}, "adjust is {'seed_0': 'a=b'}"),
        (None, "common is None"),
        ({"common": []}, "either `vary`"),
        ({"common": [], "vary": {"seed": [0]}, "settings": {"a": []}}, "either `vary`"),
        ({"common": [], "vary": {"seed": [0, 0]}}, "two settings of the sweep are called seed_0"),
        ({"common": [], "vary": {"seed": {"low": 0, "high": 3}}}, "seed: a range has no combinations"),
        ({"common": [], "vary": {"seed": [0]}, "direction": "up"}, "direction is 'up'; it wants lowest or highest"),
        ({"common": [], "vary": {"seed": [0]}, "prune": {"_target_": "a.B"}}, "prune wants `metric`"),
        ({"common": [], "vary": {"seed": [0]}, "search": {"_target_": "a.B"}}, "a search wants `metric`"),
        (
            {"common": [], "vary": {"seed": [0]}, "search": {"_target_": "a.B"}, "metric": "a/b", "as_much_as": "x"},
            "as_much_as does not go together with `search`",
        ),
    ],
)
def test_what_is_wrong_is_named(file: Any, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        expand(read_keys(file, "mine"), GROUPS)


def test_an_unknown_sweep_offers_those_there_are() -> None:
    with pytest.raises(ValueError, match="did you mean connectors"):
        read_sweep("conectors")
