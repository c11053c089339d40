"""What a stage takes over from the checkpoints of earlier ones, part by part."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from vlmtrain.nn.adapters import follow_hand_over
from vlmtrain.training.checkpoint import newest_valid
from vlmtrain.training.manifest import check_file, read_manifest
from vlmtrain.training.saved import components_of, group_files, read_group
from vlmtrain.training.state import copy_tensors, named_state

logger = logging.getLogger(__name__)

EVERYTHING = "*"  # in place of a part


@dataclass(frozen=True)
class LoadReport:
    """Tensor names of a hand-over: found on both sides, only in the model, only in the checkpoint."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]


def take_over(
    model: nn.Module, origins: Mapping[str, Mapping[str, str]], stage: str, run: Path, init_from: Path | None
) -> dict[str, LoadReport]:
    """Give parts of the model of `stage` what earlier stages learned, from the newest valid checkpoints.

    Args:
        origins: dotted part of the model -> the `stage` and the `part` of it that it starts from.
        run: the folder of this run, whose earlier stages count first.
        init_from: that of an earlier run.  A stage that bears the name of this one is always of that run: what this
            one saved is resumed, not taken over.

    Returns:
        Part of the model -> how the part of the earlier stage matched it.

    Raises:
        ValueError: no run has a checkpoint of the stage, or nothing of it matches.
    """
    reports: dict[str, LoadReport] = {}
    for path, origin in origins.items():
        runs = [] if origin["stage"] == stage else [run]
        runs += [] if init_from is None else [init_from]
        report = load_part(_checkpoint_of(origin["stage"], runs, stage), origin["part"], model.get_submodule(path))
        logger.info(
            "%s starts from %s of stage %s: %d tensors matched, %d missing (%s), %d unexpected (%s)",
            *(path, origin["part"], origin["stage"], len(report.matched)),
            *(len(report.missing), ", ".join(report.missing[:5]) or "none"),
            *(len(report.unexpected), ", ".join(report.unexpected[:5]) or "none"),
        )
        reports[path] = report
    return reports


def load_part(checkpoint: Path, part: str, into: nn.Module) -> LoadReport:
    """Give `into` what a checkpoint of an earlier stage learned for `part`, a component or a dotted part of one.

    The part "*" is the whole model, own parameters such as a temperature included, as far as the stage trained it.
    ValueError where no name matches or a shape differs.
    """
    saved = _read_checked(checkpoint, part)
    prefix = "" if part == EVERYTHING else f"{part}."
    given = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
    own = named_state(into)
    matched = copy_tensors(checkpoint / part, given, own)
    if not matched:
        raise ValueError(
            f"{checkpoint}: no tensor of {part} matches {type(into).__name__}; it holds "
            f"{', '.join(sorted(given or saved)[:5])}; the module wants {', '.join(sorted(own)[:5])}"
        )
    follow_hand_over(into, matched)
    return LoadReport(matched, sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys()))


def _checkpoint_of(origin: str, runs: list[Path], stage: str) -> Path:
    for folder in runs:
        checkpoint = newest_valid(folder / "checkpoints" / origin)
        if checkpoint is not None:
            return checkpoint
    raise ValueError(
        f"stage {stage} starts from stage {origin}, of which there is no checkpoint in {' or '.join(map(str, runs))}; "
        f"run it first, or name a run that has it with init_from=RUN_FOLDER (it needs checkpoints/{origin}/)"
    )


def _read_checked(checkpoint: Path, part: str) -> dict[str, Tensor]:
    """All tensors of the component that `part` is or lies in; their files are what was written."""
    component = part.split(".", 1)[0]
    files = read_manifest(checkpoint)["files"]
    groups = group_files(files)
    if part != EVERYTHING and component not in groups:
        raise ValueError(f"{checkpoint} holds no {component}; it holds {', '.join(sorted(groups))}")
    tensors: dict[str, Tensor] = {}
    for each in components_of(groups) if part == EVERYTHING else [component]:
        for file in groups[each]:
            check_file(checkpoint, file, files[file])
        tensors |= read_group(checkpoint, each)
    return tensors
