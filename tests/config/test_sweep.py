"""Files of conf/sweep/: every setting is a run that composes; what is wrong is named."""

import re
from typing import Any

import pytest

from vlmtrain.config.check import check
from vlmtrain.config.choices import top_groups
from vlmtrain.config.compose import compose
from vlmtrain.config.location import conf_folder, find_groups
from vlmtrain.config.sweep import SweepFile, expand, read_keys, read_sweep

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
    assert f"#   python scripts/results.py --sweep {name}\n" in GROUPS["sweep"][name].read_text()


def test_connectors_are_those_of_conf() -> None:
    assert list(read_sweep("connectors").settings) == list(GROUPS["model/connector"])


def test_several_keys_make_every_combination() -> None:
    file = SweepFile(["experiment=x"], {"seed": [0, 1], "optimizer.lr": [1e-3, 2e-3]}, adjust={"1, 0.002": ["a=b"]})
    settings = expand(file, GROUPS).settings
    assert list(settings) == ["0, 0.001", "0, 0.002", "1, 0.001", "1, 0.002"]
    assert settings["0, 0.002"] == ["experiment=x", "seed=0", "optimizer.lr=0.002"]
    assert settings["1, 0.002"] == ["experiment=x", "seed=1", "optimizer.lr=0.002", "a=b"]


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
        ({"common": [], "vary": {"seed": [0]}, "adjust": {"0": "a=b"}}, "adjust is {'0': 'a=b'}"),
        (None, "common is None"),
    ],
)
def test_what_is_wrong_is_named(file: Any, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        expand(read_keys(file, "mine"), GROUPS)


def test_an_unknown_sweep_offers_those_there_are() -> None:
    with pytest.raises(ValueError, match="did you mean connectors"):
        read_sweep("conectors")
