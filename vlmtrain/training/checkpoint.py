"""Checkpoints of a stage: published as a whole, read back newest valid first."""

import logging
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from vlmtrain.training.files import CheckpointFiles, WholeFiles
from vlmtrain.training.manifest import find_damage, is_complete, read_manifest
from vlmtrain.training.publish import remove_leftovers, stage
from vlmtrain.training.state import Progress, TrainingState
from vlmtrain.training.stops import NonFiniteTraining, SavingFails
from vlmtrain.training.tensor_file import Content, TensorFile
from vlmtrain.training.writing import Writing

logger = logging.getLogger(__name__)

NAME = re.compile(r"step-(\d{8,})")
BEGUN, IS_THERE, FAILED = 0, 1, 2  # what the first rank tells the others of a staged folder


class Checkpoints:
    """The folder `checkpoints/<stage>`; all ranks call.

    The newest `keep` valid ones are kept, and never fewer than two: should the newest get damaged, one is left.

    Args:
        facts: hashes of configuration and data; they go into every manifest, and only a run of the same is resumed.
        max_failures: so many failed saves in a row end the run.
        files: what each rank writes.
        is_asynchronous: copy the state and write it in a thread, while training goes on; one at a time.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainingState,
        accelerator: Accelerator,
        facts: dict[str, Any] | None = None,
        keep: int = 2,
        max_failures: int = 3,
        files: CheckpointFiles | None = None,
        is_asynchronous: bool = False,
    ) -> None:
        self.folder = folder
        self.state = state
        self.facts = facts or {}
        self.keep = max(keep, 2)
        self.max_failures = max_failures
        self.files = files or WholeFiles()
        self.is_asynchronous = is_asynchronous
        self.writing: Writing | None = None
        self._accelerator = accelerator
        self._failures = 0
        self._valid: set[Path] = set()  # verified or written by this process, so that pruning need not read them again

    def save(self, progress: Progress) -> bool:
        """Publish the present state, or begin to, and then `settle` says how it ended; after the one before is there.

        A storage error is survived, `max_failures` of them in a row are not.
        """
        self.settle()
        frozen = self.state.frozen_parts()  # by all ranks, which may hold parts of them
        target = self.folder / name_of(progress.step)
        begun = _agreed(self._accelerator, self._begin(target) if self._accelerator.is_main_process else 0)
        if begun != BEGUN:
            return self._count(begun == IS_THERE)
        rank, world_size = self._accelerator.process_index, self._accelerator.num_processes
        num_writers = self.files.num_writers(world_size)
        facts = self._facts_of(progress, frozen)
        self.writing = Writing(target, facts, rank, num_writers, self._note_published)
        files = self.files.collect(self.state, progress, self._accelerator)
        own = files if rank < num_writers else iter(())
        if self.is_asynchronous:
            self.writing.start([(name, _copied(content)) for name, content in own])
        else:
            self.writing.write(own)
        for _ in files:  # whoever writes nothing, or no more, goes along: wholes are put together by all ranks
            pass
        return self.is_asynchronous or self.settle()

    def settle(self) -> bool:
        """Wait for the checkpoint that is being written, if one is; False where it could not be written.

        All ranks call.  NonFiniteTraining where some rank found a weight or a moment that is NaN or infinite.
        """
        writing, self.writing = self.writing, None
        if writing is None:
            return True
        writing.wait_until_written()
        failed, not_finite, _ = self._outcome(writing)
        writing.finish(is_wanted=not (failed or not_finite))
        if not_finite:
            raise writing.error or NonFiniteTraining(f"{writing.target.name}: NaN or infinite values on another rank")
        if not failed:
            failed, _, milliseconds = self._outcome(writing)
            writing.seconds = milliseconds / 1000
        return self._count(not failed)

    def leave(self) -> None:
        """Where the run ends by an error: see that a thread that writes comes to its end."""
        if self.writing is not None:
            self.writing.leave()

    def restore_newest(self) -> Progress | None:
        """Load the newest valid checkpoint on every rank; None where there is none.

        ValueError where it was saved with other facts: on other data, the same steps would see other samples.
        """
        self.settle()
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

    def _begin(self, target: Path) -> int:
        """Make the staged folder, as the first rank."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.folder)
            if target.exists() and not self._make_way(target):
                return IS_THERE
            stage(target)
        except OSError as error:
            logger.warning("checkpoint %s could not be written: %s; training goes on", target.name, error)
            return FAILED
        return BEGUN

    def _facts_of(self, progress: Progress, frozen: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": progress.step,
            "world_size": self._accelerator.num_processes,
            "versions": {name: version(name) for name in ("torch", "transformers", "accelerate", "safetensors")},
            "frozen": frozen,
            "layout": self.files.layout,
            **self.facts,
        }

    def _outcome(self, writing: Writing) -> list[int]:
        """On how many ranks the disk refused, on how many something is not finite, and the first one's milliseconds."""
        error = writing.error
        if error is not None and not isinstance(error, OSError | NonFiniteTraining):
            raise error
        milliseconds = writing.seconds * 1000 if self._accelerator.is_main_process else 0
        own = (isinstance(error, OSError), isinstance(error, NonFiniteTraining), milliseconds)
        return _sums(self._accelerator, [int(each) for each in own])

    def _count(self, is_published: bool) -> bool:
        """The same; SavingFails at one failure too many in a row."""
        self._failures = 0 if is_published else self._failures + 1
        if self._failures >= self.max_failures:
            raise SavingFails(
                f"{self._failures} checkpoints in a row could not be written to {self.folder} (see the warnings); "
                "make room there, then run the same command again"
            )
        return is_published

    def _note_published(self, target: Path) -> None:
        self._valid.add(target)
        self._prune()

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


def _agreed(accelerator: Accelerator, number: int) -> int:
    """A number that only the first rank knows, on all of them; the others give 0."""
    return _sums(accelerator, [number])[0]


def _sums(accelerator: Accelerator, numbers: list[int]) -> list[int]:
    """Each summed over ranks."""
    told = accelerator.reduce(torch.tensor(numbers, device=accelerator.device), reduction="sum")
    return [int(number) for number in told.tolist()]


def _copied(content: Content) -> Content:
    return content.copied() if isinstance(content, TensorFile) else content
