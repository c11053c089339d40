"""A sweep as Weights & Biases understands it, for those who drive it from there: its agents start ordinary runs."""

from typing import Any

import yaml

from vlmtrain.config.sweep import LOWEST, Sweep
from vlmtrain.config.sweep_values import Range
from vlmtrain.sweeps.asked import Asked
from vlmtrain.sweeps.history import best_is

HEAD = """# The sweep {name} for Weights & Biases; written by vlmtrain.
#   wandb sweep THIS_FILE      prints the agents' command
"""
GOALS = {True: "minimize", False: "maximize"}


def write_wandb(asked: Asked) -> str:
    """The YAML.  ValueError where wandb has no word for it."""
    sweep = asked.sweep
    if not sweep.space or sweep.as_much_as is not None or _is_adjusted(sweep):
        raise ValueError(
            f"sweep {asked.name}: wandb proposes values of keys; named settings, `adjust` and `as_much_as` cannot be "
            "said to it. Run it with vlmtrain sweep."
        )
    told: dict[str, Any] = {"name": asked.name, "method": "grid" if sweep.search is None else "bayes"}
    if sweep.metric is not None:
        goal = GOALS[best_is(sweep.metric, sweep.direction) == LOWEST]
        told["metric"] = {"name": sweep.metric, "goal": goal}
    if sweep.prune is not None:
        told["early_terminate"] = {"type": "hyperband", "min_iter": 3}
    told["parameters"] = {key: _parameter(values) for key, values in sweep.space.items()}
    interpreter = ["${env}", "${interpreter}", "-m", "vlmtrain.main"]
    chosen = [f"--config-dir={folder}" for folder in asked.config_dirs]
    told["command"] = [*interpreter, *chosen, *sweep.common, "tracker=wandb", "${args_no_hyphens}"]
    return HEAD.format(name=asked.name) + yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=120)


def _parameter(values: list[str] | Range) -> dict[str, Any]:
    if not isinstance(values, Range):
        return {"values": [yaml.safe_load(value) for value in values]}
    if values.step is not None:
        return {"distribution": "q_uniform", "min": values.low, "max": values.high, "q": values.step}
    if values.log:
        return {"distribution": "log_uniform_values", "min": values.low, "max": values.high}
    return {"min": values.low, "max": values.high}


def _is_adjusted(sweep: Sweep) -> bool:
    """Whether a setting has overrides beyond those that all have and those that vary."""
    longest = len(sweep.common) + len(sweep.space)
    return any(len(overrides) > longest for overrides in sweep.settings.values())
