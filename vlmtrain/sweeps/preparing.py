"""A trial before it starts: what it trains, and its run folder."""

from dataclasses import replace
from typing import Any

from vlmtrain.config.stored import CONFIG_FILE, find_differences, read_config, write_config
from vlmtrain.config.sweep import Sweep
from vlmtrain.launch.sweep_folder import SweepFolder, Trial, read_trial
from vlmtrain.sweeps.asked import compose_trial
from vlmtrain.sweeps.history import read_history
from vlmtrain.sweeps.plans import Plan


def prepare(sweep: Sweep, plan: Plan, folder: SweepFolder, number: int) -> Trial:
    """The trial as its folder knows it, with the command of today; or as the plan chooses it now."""
    begun = folder.find(number)
    history = read_history(folder, sweep.metric) if sweep.metric else []
    chosen = plan.choose(number, history, begun.values if begun is not None else {})
    earlier = read_trial(folder.folder / chosen.name)
    if earlier is not None:
        return replace(earlier, number=number, overrides=chosen.overrides)
    return Trial(folder.folder / chosen.name, number, chosen.overrides, chosen.values)


def open_trial(trial: Trial, config_dirs: list[str]) -> dict[str, Any]:
    """Makes the run folder and gives its configuration.  ValueError where it holds a run of another one."""
    config = compose_trial(trial.overrides, config_dirs, trial.folder)
    if (trial.folder / CONFIG_FILE).is_file() and (found := find_differences(read_config(trial.folder), config)):
        raise ValueError(f"{trial.folder} holds a run of another configuration: {found[0]}; give another run_dir=")
    (trial.folder / "logs").mkdir(parents=True, exist_ok=True)
    write_config(config, trial.folder)
    return config
