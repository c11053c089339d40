"""Checkpoints of a stage: published as a whole, read back newest valid first, handed over to later stages by part."""

import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from vlmtrain.nn.adapters import follow_hand_over
from vlmtrain.training.manifest import check_file, find_damage, is_complete, read_manifest
from vlmtrain.training.publish import publish, remove_leftovers
from vlmtrain.training.state import Progress, TrainingState, copy_tensors, named_state, weight_files
from vlmtrain.training.stops import SavingFails

logger = logging.getLogger(__name__)

EVERYTHING = "*"  # in place of a part
NAME = re.compile(r"step-(\d{8,})")


class Checkpoints:
    """The folder `checkpoints/<stage>`; all ranks call, the first one writes.

    The newest `keep` valid ones are kept, and never fewer than two: should the newest get damaged, one is left.
    `facts` (hashes of configuration and data) go into every manifest, and only a run of the same facts is resumed.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainingState,
        accelerator: Accelerator,
        facts: dict[str, Any] | None = None,
        keep: int = 2,
        max_failures: int = 3,
    ) -> None:
        self.folder = folder
        self.state = state
        self.facts = facts or {}
        self.keep = max(keep, 2)
        self.max_failures = max_failures
        self._accelerator = accelerator
        self._failures = 0
        self._valid: set[Path] = set()  # verified or written by this process, so that pruning need not read them again

    def save(self, progress: Progress) -> bool:
        """Publish the present state.  A storage error is survived, `max_failures` of them in a row are not."""
        self.state.frozen_parts()  # by all ranks, which may hold parts of them
        files = self.state.gathered(progress)
        failed = self._accelerator.is_main_process and not self._try_to_save(progress, files)
        for _ in files:  # whoever writes nothing, or no more, goes along: wholes are put together by all ranks
            pass
        if _agreed(self._accelerator, int(failed)) == 0:
            self._failures = 0
            return True
        self._failures += 1
        if self._failures >= self.max_failures:
            raise SavingFails(
                f"{self._failures} checkpoints in a row could not be written to {self.folder} (see the warnings); "
                "make room there, then run the same command again"
            )
        return False

    def restore_newest(self) -> Progress | None:
        """Load the newest valid checkpoint on every rank; None where there is none.

        ValueError where it was saved with other facts: on other data, the same steps would see other samples.
        """
        newest = self.newest_valid() if self._accelerator.is_main_process else None
        # 0 says "none": a checkpoint of step 0 would hold nothing that was trained.
        step = _agreed(self._accelerator, step_of(newest) if newest is not None else 0)
        if step == 0:
            return None
        folder = self.folder / name_of(step)
        self._check_facts(folder)
        progress = self.state.restore(folder)
        logger.info("resumed from %s", folder)
        return progress

    def newest_valid(self) -> Path | None:
        return newest_valid(self.folder, self._valid)

    def require_room(self) -> None:
        """ValueError where the disk has no room for two checkpoints; better before the start than hours later."""
        self.folder.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(self.folder).free, 2 * self.state.size()
        if free < needed:
            raise ValueError(
                f"{self.folder} has {free / 1e9:.1f} GB free; two checkpoints need {needed / 1e9:.1f} GB: "
                "make room, or give a folder on another disk with run_dir="
            )

    def _try_to_save(self, progress: Progress, files: Iterator[tuple[str, dict[str, Tensor] | bytes]]) -> bool:
        target = self.folder / name_of(progress.step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            if target.exists() and not self._make_way(target):
                return True
            facts = {
                "step": progress.step,
                "world_size": self._accelerator.num_processes,
                "versions": {name: version(name) for name in ("torch", "transformers", "accelerate", "safetensors")},
                "frozen": self.state.frozen_parts(),
                **self.facts,
            }
            publish(target, self.state.written(files), facts)
            self._valid.add(target)
            self._prune()
        except OSError as error:
            logger.warning("checkpoint of step %d could not be written: %s; training goes on", progress.step, error)
            return False
        return True

    def _check_facts(self, folder: Path) -> None:
        saved = read_manifest(folder)
        other = [name for name, fact in self.facts.items() if saved.get(name, fact) != fact]
        if other:
            told = "; ".join(f"{name} {saved[name]} then, {self.facts[name]} now" for name in other)
            raise ValueError(
                f"{folder} was saved with other {' and '.join(other)} ({told}): give the same again to resume, or "
                "start a new run with --fresh or another run_dir=FOLDER"
            )

    def _make_way(self, target: Path) -> bool:
        """True where nothing valid stands in the way any more; a valid checkpoint is never overwritten."""
        damage = find_damage(target)
        if damage is None:
            logger.info("%s is there already and valid; it stays", target)
            return False
        logger.warning("%s is damaged (%s) and is written anew", target, damage)
        shutil.rmtree(target)
        return True

    def _prune(self) -> None:
        """Remove all but the newest `keep` valid checkpoints, and the damaged ones older than these."""
        kept = 0
        for folder in list_checkpoints(self.folder):
            if kept >= self.keep:
                self._valid.discard(folder)
                shutil.rmtree(folder)
            elif is_complete(folder) if folder in self._valid else find_damage(folder) is None:
                self._valid.add(folder)
                kept += 1


def list_checkpoints(folder: Path) -> list[Path]:
    """Published checkpoints, damaged ones included, newest first."""
    found = [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=step_of, reverse=True)


def newest_valid(folder: Path, known_valid: set[Path] | None = None) -> Path | None:
    """The newest checkpoint in `folder` that is what its manifest says; says of each skipped one what is wrong."""
    for path in list_checkpoints(folder):
        damage = find_damage(path)
        if damage is None:
            if known_valid is not None:
                known_valid.add(path)
            return path
        logger.warning("skipping %s: %s", path, damage)
    return None


def name_of(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: Path) -> int:
    found = NAME.fullmatch(folder.name)
    if found is None:
        raise ValueError(f"{folder} is not the folder of a checkpoint, which would be named like {name_of(123)}")
    return int(found[1])


@dataclass(frozen=True)
class LoadReport:
    """Tensor names of a hand-over: found on both sides, only in the model, only in the checkpoint."""

    matched: list[str]
    missing: list[str]
    unexpected: list[str]


def load_part(checkpoint: Path, part: str, into: nn.Module) -> LoadReport:
    """Give `into` what a checkpoint of an earlier stage learned for `part`, a component or a dotted part of one.

    The part "*" is the whole model, own parameters such as a temperature included, as far as the stage trained it.
    ValueError where no name matches or a shape differs.
    """
    whole = part == EVERYTHING
    files = weight_files(read_manifest(checkpoint)) if whole else [f"{part.split('.', 1)[0]}.safetensors"]
    saved = {name: value for file in files for name, value in load_file(check_file(checkpoint, file)).items()}
    prefix = "" if whole else f"{part}."
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


def _agreed(accelerator: Accelerator, number: int) -> int:
    """The sum over ranks: a number that only one rank knows, on all of them."""
    told = accelerator.reduce(torch.tensor([number], device=accelerator.device), reduction="sum")
    return int(told.item())
