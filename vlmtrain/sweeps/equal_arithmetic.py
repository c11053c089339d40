"""Steps for every setting, so that all of them compute as much as one of them does."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from vlmtrain.config.sweep import Sweep

Count = Callable[[dict[str, Any]], dict[str, int]]
ComposeTrial = Callable[[list[str]], dict[str, Any]]


def equal_arithmetic(sweep: Sweep, resolve: ComposeTrial, count: Count) -> dict[str, tuple[list[str], int]]:
    """Setting -> its overrides, with the steps that the arithmetic of `as_much_as` buys; and what its run takes.

    `count` says how much one step of every stage of a configuration computes (launch.arithmetic).
    """
    configs = {setting: resolve(overrides) for setting, overrides in sweep.settings.items()}
    costs = {setting: count(config) for setting, config in configs.items()}
    planned = {}
    for setting, overrides in sweep.settings.items():
        given = setting if sweep.as_much_as is None else sweep.as_much_as
        steps = {
            name: max(1, round(stage["trainer"]["max_steps"] * costs[given][name] / costs[setting][name]))
            for name, stage in configs[given]["stages"].items()
        }
        lengths = [f"stages.{name}.trainer.max_steps={count}" for name, count in steps.items()]
        planned[setting] = ([*overrides, *lengths], sum(steps[name] * costs[setting][name] for name in steps))
    return planned


def settle_steps(sweep: Sweep, earlier: Mapping[str, Any] | None, resolve: ComposeTrial, count: Count) -> Sweep:
    """The sweep with all steps in its overrides; those that `earlier` (a stored sweep) settled are taken from there."""
    if sweep.as_much_as is None:
        return sweep
    if earlier is not None and earlier["as_much_as"] == sweep.as_much_as:
        known: dict[str, list[str]] = earlier["settings"]
        if all(_begins(known.get(name, []), typed) for name, typed in sweep.settings.items()):
            return replace(sweep, settings={name: known[name] for name in sweep.settings})
    planned = equal_arithmetic(sweep, resolve, count)
    return replace(sweep, settings={setting: overrides for setting, (overrides, _) in planned.items()})


def _begins(settled: list[str], typed: list[str]) -> bool:
    return settled[: len(typed)] == typed and len(settled) > len(typed)
