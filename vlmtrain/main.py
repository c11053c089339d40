"""`vlmtrain [verb] [overrides]`.  Reads as a table of contents; torch loads only when a run or a plan begins."""

import importlib
import sys
from typing import Any

import yaml

from vlmtrain.config.allowed import allow
from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.config.faults import ConfigError, Fault, offer
from vlmtrain.config.overrides import Typed, read_arguments
from vlmtrain.launch.failures import report
from vlmtrain.launch.help import show_help, show_keys
from vlmtrain.launch.local import world_size

VERBS = {
    "train": "train an experiment; the same command again resumes it",
    "sweep": "train an experiment in several settings: +sweep=NAME, or keys with several values, as -m does",
    "compare": "what differs between runs, in config and in metrics: RUN RUN ..., with --html FILE as a page",
    "plan": "parts, parameters, memory, steps and disk, without loading a weight",
    "status": "how far runs are: those under runs/, or the folders named",
    "logs": "what a run printed under SLURM: logs RUN, with -f whatever comes",
    "faults": "kill, stop and spoil small runs on purpose, and keep the score: --tier smoke | full, --only F07",
    "config": "show the resolved configuration (config keys: every key there is)",
    "help": "this text",
}

WITH_WORDS = ("config", "help", "status", "logs", "compare")


def main(arguments: list[str] | None = None) -> int:
    """The command; launch.failures has the exit codes."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with_traceback = "--debug" in arguments
    try:
        typed = read_arguments(arguments, list(VERBS), verbs_with_words=WITH_WORDS)
        if typed.verb == "help" or "help" in typed.switches:
            return show_help(VERBS, typed.config_dirs)
        if typed.faults:
            raise ConfigError(typed.faults)
        allow(typed.allowed)
        return run_verb(typed)
    except (Exception, KeyboardInterrupt) as error:
        return report(error, with_traceback)


def run_verb(typed: Typed) -> int:
    """Composes and checks once, then does what was asked."""
    if typed.verb == "config" and typed.words == ["keys"]:
        return show_keys()
    if typed.verb in ("status", "logs"):
        return show_runs(typed)
    if typed.verb in ("sweep", "compare"):
        several: int = getattr(importlib.import_module("vlmtrain.sweeps.command"), typed.verb)(typed)
        return several
    if typed.verb == "faults":
        return int(importlib.import_module("vlmtrain.faults.command").faults(typed.overrides))
    if typed.words:
        raise ConfigError([Fault("", f"vlmtrain config {typed.words[0]} is unknown", offer(typed.words[0], ["keys"]))])
    config = resolve(typed)
    if typed.verb == "config":
        sys.stdout.write(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120))
        return 0
    if typed.verb == "plan":
        return importlib.import_module("vlmtrain.launch.plan").plan(config)
    kind = "local" if world_size() > 1 else config["launcher"]["kind"]
    launch = importlib.import_module(f"vlmtrain.launch.{kind}").launch
    code: int = launch(config, start_fresh="fresh" in typed.switches, with_traceback="debug" in typed.switches)
    return code


def show_runs(typed: Typed) -> int:
    """Where runs stand, or what one of them says."""
    status = importlib.import_module("vlmtrain.launch.status")
    if typed.verb == "status":
        return int(status.show_status(typed.words))
    return int(status.show_logs(typed.words, follow="follow" in typed.switches))


def resolve(typed: Typed) -> dict[str, Any]:
    """The one configuration that this command line means, found right."""
    overrides = list(typed.overrides)
    if world_size() > 1:  # torchrun has decided how many we are
        overrides = ["distributed=ddp", *overrides, f"distributed.num_processes={world_size()}"]  # an engine typed wins
    composed = compose(overrides, typed.config_dirs)
    check(composed)
    return composed.config


if __name__ == "__main__":
    sys.exit(main())
