"""Settings that compute equally much, with a stand-in for the counting."""

from dataclasses import asdict, replace
from typing import Any

from vlmtrain.config.compose import compose
from vlmtrain.config.sweep import Sweep
from vlmtrain.sweeps.equal_arithmetic import equal_arithmetic, settle_steps

COSTS = {"linear": 100, "mlp": 300}
SETTINGS = {name: ["experiment=prefix_lm", f"model/connector={name}", "trainer.max_steps=60"] for name in COSTS}


def resolve(overrides: list[str]) -> dict[str, Any]:
    return compose(overrides).config


def count(config: dict[str, Any]) -> dict[str, int]:
    name = config["model"]["connector"]["_target_"].rsplit(".", 2)[1]
    return {stage: COSTS[name] for stage in config["stages"]}


def test_what_is_cheaper_gets_more_steps() -> None:
    planned = equal_arithmetic(Sweep(SETTINGS, "mlp"), resolve, count)
    steps = {name: resolve(overrides)["stages"]["prefix"]["trainer"] for name, (overrides, _) in planned.items()}
    assert {name: trainer["max_steps"] for name, trainer in steps.items()} == {"linear": 180, "mlp": 60}
    assert [arithmetic for _, arithmetic in planned.values()] == [18_000, 18_000]


def test_without_a_measure_all_keep_their_steps() -> None:
    planned = equal_arithmetic(Sweep(SETTINGS), resolve, count)
    assert [arithmetic for _, arithmetic in planned.values()] == [6_000, 18_000]


def test_it_is_counted_once_and_kept() -> None:
    counted: list[Any] = []

    def counting(config: dict[str, Any]) -> dict[str, int]:
        counted.append(config)
        return count(config)

    sweep = Sweep(SETTINGS, "mlp")
    settled = settle_steps(sweep, None, resolve, counting)
    assert settled.settings["linear"][-1] == "stages.prefix.trainer.max_steps=180" and len(counted) == 2
    assert settle_steps(sweep, asdict(settled), resolve, counting) == settled and len(counted) == 2
    other = replace(sweep, settings={name: [*typed, "seed=1"] for name, typed in SETTINGS.items()})
    assert settle_steps(other, asdict(settled), resolve, counting) != settled and len(counted) == 4
    assert settle_steps(Sweep(SETTINGS), None, resolve, counting).settings == SETTINGS and len(counted) == 4
