"""`vlmtrain --help`: made from the schema and the first lines of conf/, without composing anything."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from vlmtrain.config.choices import top_groups
from vlmtrain.config.location import describe, find_groups, search_folders
from vlmtrain.config.schema import (
    REQUIRED,
    OptimizerConfig,
    RunConfig,
    TrainerConfig,
    default_of,
    list_keys,
    spell_type,
)
from vlmtrain.config.typed_values import describe_range

EXAMPLES = (
    ("vlmtrain +experiment=blip2_opt", "train on the embedded data; minutes on two CPU cores"),
    ("vlmtrain plan experiment=blip2_opt scale=paper", "parameters, memory, steps and disk before paying for them"),
    ("vlmtrain experiment=blip2_opt data=pairs data.path=FOLDER", "your own pictures and captions"),
    ("vlmtrain experiment=blip2_opt stages=[language] init_from=RUN", "the second stage alone"),
    ("vlmtrain sweep +sweep=learning_rate --at-once 2", "several settings, two trials at a time, and a leaderboard"),
    ("vlmtrain -m experiment=blip2_opt optimizer.lr=3e-4,1e-3 seed=0,1", "every combination of what is typed"),
    ("vlmtrain experiment=blip2_opt distributed=ddp distributed.num_processes=2", "two processes"),
)
TYPED_KEYS: tuple[str, ...] = (
    "seed",
    "run_dir",
    "init_from",
    "data.path",
    "stages",
    "trainer.max_steps",
    "trainer.batch_size",
)
TYPED_KEYS += ("trainer.precision", "optimizer.lr", "distributed.num_processes")
MORE_DOCS = {"data.path": "where your data lies (data=pairs)", "stages": "the stages to run: stages=[language]"}
OPTIONS = (
    ("--fresh", "start over; an old run in run_dir= is moved aside, never deleted"),
    ("--config-dir DIR", "a folder of your own config files, laid out like conf/"),
    ("--allow PACKAGE", "let _target_ name parts of your package (also VLMTRAIN_ALLOW)"),
    ("--at-once N", "trials of a sweep that run at the same time [1 here, all under SLURM]"),
    ("--by METRIC", "what a comparison or a sweep is ordered by: STAGE/SPLIT/METRIC"),
    ("--html FILE", "write a comparison as a page with curves"),
    ("--wandb-yaml", "print a sweep for `wandb sweep` instead of running it"),
    ("--debug", "show tracebacks"),
)


def show_help(verbs: Mapping[str, str], config_dirs: list[str]) -> int:
    """Verbs, keys, groups with their options, options, examples."""
    sys.stdout.write("\n".join(_lines(verbs, config_dirs)) + "\n")
    return 0


def show_keys() -> int:
    """Every key of the closed sections as a Markdown table."""
    rows = ["| key | type | default | what it is |", "|---|---|---|---|"]
    for path, entry in list_keys(RunConfig).items():
        if path not in ("trainer", "optimizer", "distributed", "launcher"):
            allowed = "/".join(entry.metadata["choices"]) or f"{spell_type(entry)}{describe_range(entry)}"
            allowed = allowed.replace("typing.", "").replace("vlmtrain.config.schema.", "").replace("|", "or")
            rows.append(f"| `{path}` | {allowed} | {_default(entry)} | {entry.metadata['doc']} |")
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


def _lines(verbs: Mapping[str, str], config_dirs: list[str]) -> Iterator[str]:
    yield "vlmtrain [verb] [key=value ...]     vision-language models, assembled and trained from config files"
    yield "\nVerbs (none: train)"
    yield from (f"  {name:<12} {summary}" for name, summary in verbs.items())
    yield "\nKeys that people type (all: vlmtrain config keys)"
    docs = {path: entry.metadata["doc"] for path, entry in list_keys(RunConfig).items()} | MORE_DOCS
    defaults = {f"trainer.{name}": default for name, default in _defaults(TrainerConfig).items()}
    defaults |= {f"optimizer.{name}": default for name, default in _defaults(OptimizerConfig).items()}
    for key in TYPED_KEYS:
        suffix = f" [{defaults[key]}]" if key in defaults else ""
        yield f"  {key + '=':<28} {docs[key]}{suffix}"
    yield "  trainer.* and optimizer.* hold for every stage, stages.language.trainer.max_steps= for one"
    yield "\nGroups and their options"
    groups = find_groups(search_folders(config_dirs))
    for group, options in top_groups(groups).items():
        yield f"  {group}="
        yield from (f"    {name:<14} {describe(file)}" for name, file in options.items())
    yield "\nSweeps: vlmtrain sweep"
    yield from (f"  +sweep={name:<22} {describe(file)}" for name, file in groups["sweep"].items())
    yield "\nOptions"
    yield from (f"  {name:<18} {text}" for name, text in OPTIONS)
    yield "\nExamples"
    yield from (f"  {command}\n      {text}" for command, text in EXAMPLES)


def _defaults(section: type) -> dict[str, Any]:
    return {path: _default(entry) for path, entry in list_keys(section).items()}


def _default(entry: Any) -> str:
    value = default_of(entry)
    if value is REQUIRED:
        return "from the experiment"
    return (
        "null"
        if value is None
        else ""
        if value == {}
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
