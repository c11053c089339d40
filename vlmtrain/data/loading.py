"""Feeds the trainer: for every step the micro-batches of this rank, read and decoded by worker processes.

There is no iterator state.  The step number, the seed and the global batch size decide which samples a step sees,
whatever the number of ranks, micro-batches and workers; starting at any step is as cheap as starting at the first.
"""

import logging
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vlmtrain.batch import Batch
from vlmtrain.data.collate import Collator, Prepared
from vlmtrain.data.decode import UndecodableImage
from vlmtrain.data.forms.base import Form
from vlmtrain.data.keys import key_of
from vlmtrain.data.order import reserve, sample_positions
from vlmtrain.data.quarantine import MAX_IN_A_ROW
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.base import Source
from vlmtrain.data.workers import Place, WorkerPool
from vlmtrain.layout import NothingToLearn, Part, Visual

logger = logging.getLogger(__name__)

Transform = Callable[[bytes, int | None], Tensor]
"""Encoded image, key -> uint8 [3, H, W], or [tiles, 3, H, W] of an image cut up, the whole of it as the last tile."""

_READS = 4
_FIRST_PAUSE = 0.05  # seconds before the second read; doubles


@dataclass(frozen=True)
class LoadingPlan:
    """How the samples of a step are cut and who prepares them."""

    seed: int
    batch_size: int  # G, of all ranks and micro-batches together
    max_steps: int
    accumulate: int = 1
    rank: int = 0
    world_size: int = 1
    num_workers: int = 0
    together: int = 1  # samples that must come in the same batch (see sample_positions)
    start_method: str = "forkserver"  # of workers; "fork" is quicker to start and unsafe beside threads

    def __post_init__(self) -> None:
        parts = self.accumulate * self.world_size
        if parts < 1 or self.batch_size < 1 or self.batch_size % parts:
            raise ValueError(
                f"a global batch of {self.batch_size} samples cannot be cut evenly into {self.world_size} processes x "
                f"{self.accumulate} micro-batches: choose a batch_size that is a multiple of {max(parts, 1)}"
            )
        if not 0 <= self.rank < self.world_size or self.num_workers < 0:
            raise ValueError(
                f"rank {self.rank} must be below world_size {self.world_size}, num_workers {self.num_workers} from 0 on"
            )

    @property
    def micro_batch_size(self) -> int:
        return self.batch_size // (self.accumulate * self.world_size)


class MicroBatches:
    """The micro-batches of this rank, by (step, number within the step)."""

    def __init__(self, source: Source, form: Form, transform: Transform, collator: Collator, plan: LoadingPlan) -> None:
        self.source = source
        self.form = form
        self.transform = transform
        self.collator = collator
        self.plan = plan
        self._positions(0)  # a batch that the data cannot fill fails now and not in a worker

    def _positions(self, step: int) -> list[tuple[int, int]]:
        plan = self.plan
        return sample_positions(step, plan.batch_size, len(self.source), plan.seed, plan.together)

    def read(self, place: Place) -> Batch:
        step, number = place
        plan, size = self.plan, self.plan.micro_batch_size
        first = (number * plan.world_size + plan.rank) * size
        positions = self._positions(step)[first : first + size]
        quarantined: list[dict[str, str]] = []
        slots = [
            self._candidates(step * plan.batch_size + first + slot, epoch, index, quarantined)
            for slot, (epoch, index) in enumerate(positions)
        ]
        batch = self._collate([next(slot) for slot in slots], slots)
        return replace(batch, seed=key_of("step", plan.seed, step), quarantined=quarantined)

    def _collate(self, samples: list[Prepared], slots: list[Generator[Prepared, None, None]]) -> Batch:
        """Only the layout knows whether a caption holds a word that the model can learn; if not, it is broken too."""
        while True:
            try:
                return self.collator(samples)
            except NothingToLearn as error:
                samples[error.row] = slots[error.row].throw(BrokenSample(samples[error.row].key, error.reason))

    def _candidates(
        self, position: int, epoch: int, index: int, quarantined: list[dict[str, str]]
    ) -> Generator[Prepared, None, None]:
        """The sample at `index`; then, each time one is broken or a BrokenSample thrown in, the next of the reserve."""
        for attempt in range(MAX_IN_A_ROW + 1):
            try:
                record = read_patiently(self.source, index)
                key = key_of("sample", self.plan.seed, epoch, index)
                yield prepare(record, self.form.parts(record, key), self.transform, key)
            except BrokenSample as error:
                entry = {"id": error.key, "source": self.source.name, "reason": error.reason, "position": str(position)}
                quarantined.append(entry)
                index = reserve(position, attempt, len(self.source), self.plan.seed)
        last = quarantined[-1]
        raise ValueError(
            f"{MAX_IN_A_ROW + 1} samples in a row are broken in {self.source.name}; the last is {last['id']!r}: "
            f"{last['reason']}. Look at this sample first; the data as a whole is not what this form expects."
        )


class StepLoader:
    """For every step, the list of this rank's `accumulate` micro-batches."""

    def __init__(self, source: Source, form: Form, transform: Transform, collator: Collator, plan: LoadingPlan) -> None:
        self.plan = plan
        self.micro_batches = MicroBatches(source, form, transform, collator, plan)

    def steps(self, start: int = 0) -> Iterator[list[Batch]]:
        """Steps `start` to max_steps - 1.  Any start gives the same steps as a run from the first."""
        count, accumulate = max(0, self.plan.max_steps - start), self.plan.accumulate
        pool = WorkerPool(self.micro_batches.read, self.plan.num_workers, self.plan.start_method)
        batches = pool.items(count * accumulate, lambda number: (start + number // accumulate, number % accumulate))
        for _ in range(count):
            yield [next(batches) for _ in range(accumulate)]


class EvaluationBatches:
    """Records with their batches, in the order of the source; broken ones are left out and named in the log."""

    def __init__(self, form: Form, transform: Transform, collator: Collator, batch_size: int) -> None:
        self.form = form
        self.transform = transform
        self.collator = collator
        self.batch_size = batch_size

    def __call__(self, source: Source, limit: int | None, prompts: bool) -> Iterator[tuple[list[Record], Batch]]:
        """At most `limit` records; `prompts` gives rows to be continued, otherwise rows of the first caption."""
        truncated = 0
        for records, batch in self._batches(source, limit, prompts):
            truncated += batch.text.truncated
            yield records, batch
        if truncated:
            logger.warning(
                "%d texts of %s are longer than max_tokens and were cut for the evaluation", truncated, source.name
            )

    def _batches(self, source: Source, limit: int | None, prompts: bool) -> Iterator[tuple[list[Record], Batch]]:
        pairs = list[tuple[Record, Prepared]]()
        for index in range(min(len(source), len(source) if limit is None else limit)):
            try:
                record = read_patiently(source, index)
                parts = self.form.prompt_parts(record) if prompts else self.form.parts(record, 0)
                pairs.append((record, prepare(record, parts, self.transform, None)))
            except BrokenSample as error:
                logger.warning("left out of the evaluation on %s: %s", source.name, error)
            if len(pairs) == self.batch_size:
                yield from self._collate(pairs, source, prompts)
                pairs = []
        yield from self._collate(pairs, source, prompts)

    def _collate(
        self, pairs: list[tuple[Record, Prepared]], source: Source, prompts: bool
    ) -> Iterator[tuple[list[Record], Batch]]:
        """The batch, without the samples that hold nothing to learn; no batch where none is left."""
        make = self.collator.prompts if prompts else self.collator
        while pairs:
            try:
                batch = make([sample for _, sample in pairs])
            except NothingToLearn as error:
                record, _ = pairs.pop(error.row)
                logger.warning(
                    "left out of the evaluation on %s: %s", source.name, BrokenSample(record.key, str(error))
                )
                continue
            yield [record for record, _ in pairs], batch
            return


def read_patiently(source: Source, index: int) -> Record:
    """The record.  Storage that fails is asked again, and then stops the run: what may pass is no broken sample."""
    pause = _FIRST_PAUSE
    for _ in range(_READS - 1):
        try:
            return source.read(index)
        except OSError as error:
            logger.warning("reading %s of %s failed and is tried again: %s", source.key(index), source.name, error)
            time.sleep(pause)
            pause *= 2
    try:
        return source.read(index)
    except OSError as error:
        raise OSError(
            f"reading {source.key(index)!r} of {source.name} failed {_READS} times: {error}. "
            "Check the storage, then run the same command again: it goes on where it stopped."
        ) from error


def prepare(record: Record, parts: list[Part], transform: Transform, key: int | None) -> Prepared:
    """Decode what the parts call for."""
    made: dict[tuple[int, ...], Tensor] = {}  # images of an item -> [tiles, 3, H, W]
    written: list[Part] = []
    items: list[Tensor] = []
    for part in parts:
        if isinstance(part, Visual):
            if part.images not in made:
                made[part.images] = _make_item(record, part.images, transform, key)
            items.append(made[part.images])
            part = replace(part, tiles=len(items[-1]))
        written.append(part)
    return Prepared(record.key, written, items, record.weight, record.origin)


def _make_item(record: Record, images: tuple[int, ...], transform: Transform, key: int | None) -> Tensor:
    """[tiles, 3, H, W]: all tiles of one image; of a video one tile, the whole frame, for each frame, all cut alike."""
    if key is not None and images[0] > 0:  # of a record's first image the key is the record's
        key = key_of("image", key, images[0])
    tiles: list[Tensor] = []
    for image in images:
        if image >= len(record.images):
            raise BrokenSample(record.key, f"its form asks for image {image + 1}, it has {len(record.images)} images")
        try:
            pixels = transform(record.images[image], key)
        except UndecodableImage as error:
            which = f"image {image + 1} of {len(record.images)}: " if len(record.images) > 1 else ""
            raise BrokenSample(record.key, f"{which}{error}") from None
        cut = pixels if pixels.dim() == 4 else pixels[None]
        tiles.append(cut if len(images) == 1 else cut[-1:])
    return torch.cat(tiles)
