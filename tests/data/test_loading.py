"""Every cut of a step gives the same samples, pixels and words; faults are counted, replaced and bounded."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmtrain.batch import Batch
from vlmtrain.data.collate import Collator
from vlmtrain.data.forms import Captioning, TextDocuments
from vlmtrain.data.loading import EvaluationBatches, LoadingPlan, StepLoader
from vlmtrain.data.scenes.text import document
from vlmtrain.data.sources.documents import MadeDocuments
from vlmtrain.data.sources.webdataset import WebDataset
from vlmtrain.data.transforms import ImageTransform
from vlmtrain.layout import Layout

MakeLoader = Callable[..., StepLoader]
PLAN = LoadingPlan(seed=3, batch_size=8, max_steps=6, start_method="fork")


def three(tiles: int) -> int:
    return 3


@pytest.fixture
def images(jpeg: Callable[..., bytes]) -> list[bytes]:
    return [jpeg(number) for number in range(21)]


@pytest.fixture
def make_loader(layout: Layout) -> MakeLoader:
    def make(source: Any, **changes: Any) -> StepLoader:
        transform = ImageTransform(16, crop_scale=(0.5, 1.0), flip=True)
        return StepLoader(source, Captioning(), transform, Collator(layout, three), replace(PLAN, **changes))

    return make


def rows(batches: list[Batch]) -> list[tuple[str, bytes, str]]:
    """What each sample of the batches is: name, pixels, words."""
    return [
        (key, pixels.numpy().tobytes(), "".join(chr(token) for token in ids.tolist() if token))
        for batch in batches
        for key, pixels, ids in zip(batch.sample_ids, batch.visual.pixels, batch.text.input_ids, strict=True)
    ]


def whole_steps(make: MakeLoader, source: Any, world_size: int, accumulate: int, **changes: Any) -> list[list[Any]]:
    """The rows of every step, in the order of the global batch, put together from all ranks."""
    cut = {"world_size": world_size, "accumulate": accumulate, **changes}
    ranks = [list(make(source, rank=rank, **cut).steps()) for rank in range(world_size)]
    return [
        [row for number in range(accumulate) for rank in ranks for row in rows([rank[step][number]])]
        for step in range(PLAN.max_steps)
    ]


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 2), (2, 1), (2, 2), (4, 2), (1, 8)])
def test_any_cut_gives_the_same_global_batch(
    make_loader: MakeLoader, list_source: Any, images: list[bytes], world_size: int, accumulate: int
) -> None:
    source = list_source(images, broken={2, 5, 6})
    assert whole_steps(make_loader, source, world_size, accumulate) == whole_steps(make_loader, source, 1, 1)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(
    make_loader: MakeLoader, list_source: Any, images: list[bytes], num_workers: int
) -> None:
    source = list_source(images, broken={2, 5, 6})
    alone = list(make_loader(source, accumulate=2).steps())
    helped = list(make_loader(source, accumulate=2, num_workers=num_workers).steps())
    assert [rows(step) for step in helped] == [rows(step) for step in alone]
    assert [[b.quarantined for b in step] for step in helped] == [[b.quarantined for b in step] for step in alone]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("start", [1, 3, 5, 6, 9])
def test_starting_at_any_step_gives_what_an_uninterrupted_run_gets(
    make_loader: MakeLoader, list_source: Any, images: list[bytes], start: int, num_workers: int
) -> None:
    whole = [rows(step) for step in make_loader(list_source(images), accumulate=2).steps()]
    rest = make_loader(list_source(images), accumulate=2, num_workers=num_workers).steps(start)
    assert [rows(step) for step in rest] == whole[start:]


def test_seed_is_of_the_step_and_shared_by_its_micro_batches(
    make_loader: MakeLoader, list_source: Any, images: list[bytes]
) -> None:
    steps = list(make_loader(list_source(images), accumulate=4).steps())
    seeds = [{batch.seed for batch in step} for step in steps]
    assert all(len(each) == 1 for each in seeds)
    assert len(set.union(*seeds)) == len(steps)
    other = next(make_loader(list_source(images), accumulate=4, rank=1, world_size=2).steps())
    assert other[0].seed == steps[0][0].seed


def test_augmentation_differs_between_epochs(make_loader: MakeLoader, list_source: Any, images: list[bytes]) -> None:
    steps = make_loader(list_source(images[:8]), max_steps=2).steps()
    first, second = ({key: pixels for key, pixels, _ in rows(step)} for step in steps)
    assert first.keys() == second.keys() and sum(first[key] != second[key] for key in first) >= 7


def test_batch_holds_bytes_and_python_numbers(make_loader: MakeLoader, list_source: Any, images: list[bytes]) -> None:
    batch = next(make_loader(list_source(images)).steps())[0]
    assert batch.visual.pixels.shape == (8, 3, 16, 16) and batch.visual.pixels.dtype == torch.uint8
    assert batch.visual.tiles_per_item == [1] * 8 and batch.visual.items_per_sample == [1] * 8
    assert len(batch) == 8 == len(set(batch.sample_ids))


def test_text_without_any_image(layout: Layout) -> None:
    source = MadeDocuments(document, 0, 30)
    loader = StepLoader(source, TextDocuments(), ImageTransform(16), Collator(layout, three), PLAN)
    batch = next(loader.steps())[0]
    assert len(batch.visual.pixels) == 0 and batch.visual.tiles_per_item == []
    assert batch.visual.items_per_sample == [0] * 8 and len(batch) == 8


def test_batch_that_cannot_be_had_is_refused_at_once(
    make_loader: MakeLoader, list_source: Any, images: list[bytes]
) -> None:
    with pytest.raises(ValueError, match="22 samples and the data has 21"):
        make_loader(list_source(images), batch_size=22)
    with pytest.raises(ValueError, match=r"global batch of 8 samples.*3 processes x 2"):
        replace(PLAN, world_size=3, accumulate=2)
    with pytest.raises(ValueError, match="rank 2 must be below world_size 2"):
        replace(PLAN, world_size=2, rank=2)


# Broken samples (F18) ------------------------------------------------------------------------------------------------


def test_broken_samples_are_replaced_and_reported_and_move_nobody_else(
    make_loader: MakeLoader, list_source: Any, images: list[bytes]
) -> None:
    clean = list(make_loader(list_source(images)).steps())
    planted = list(make_loader(list_source(images, broken={2, 5})).steps())
    broken = {"sample-2", "sample-5"}
    for before, after in zip(clean, planted, strict=True):
        for one, other in zip(before[0].sample_ids, after[0].sample_ids, strict=True):
            assert one == other or (one in broken and other not in broken)
        names = {entry["id"] for entry in after[0].quarantined}
        assert names >= broken & set(before[0].sample_ids) and names <= broken
        assert all(entry["source"] == "list" and entry["reason"] == "planted" for entry in after[0].quarantined)


def test_planted_faults_are_found_and_nothing_else(
    tmp_path: Path, write_shard: Callable[..., Path], jpeg: Callable[..., bytes], layout: Layout
) -> None:
    """F18 in small: half a JPEG, an empty file, zeros, HTML, a wrong extension; and an empty caption."""
    good = jpeg(0, 40, 30)
    faults = {7: good[: len(good) // 2], 19: b"", 33: bytes(900), 40: b"<html></html>", 55: b"a text, not an image"}
    members = {}
    for number in range(80):
        members[f"{number:03d}.jpg"] = faults.get(number, good)
        members[f"{number:03d}.txt"] = b" " if number == 66 else b"a caption"
    write_shard(tmp_path / "s.tar", members)
    plan = replace(PLAN, batch_size=16, max_steps=5)
    source = WebDataset(str(tmp_path))
    loader = StepLoader(source, Captioning(), ImageTransform(16), Collator(layout, three), plan)
    batches = [batch for step in loader.steps() for batch in step]
    found = {entry["id"]: entry["reason"] for batch in batches for entry in batch.quarantined}
    assert sorted(found) == [f"s/{number:03d}" for number in sorted({*faults, 66})]
    assert "caption" in found["s/066"] and "empty" in found["s/019"] and "not a JPEG" in found["s/040"]
    delivered = {key for batch in batches for key in batch.sample_ids}
    assert delivered == {f"s/{number:03d}" for number in range(80)} - set(found)
    assert sum(len(batch) for batch in batches) == 80


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nothing_but_broken_samples_stops_and_names_the_source(
    make_loader: MakeLoader, list_source: Any, images: list[bytes], num_workers: int
) -> None:
    loader = make_loader(list_source(images, broken=set(range(21))), num_workers=num_workers)
    with pytest.raises(
        ValueError, match=r"^101 samples in a row are broken in list; the last is 'sample-\d+': planted"
    ):
        next(loader.steps())


# Storage that fails (F20) --------------------------------------------------------------------------------------------


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmtrain.data.loading._FIRST_PAUSE", 0.0)


@pytest.mark.usefixtures("no_pause")
def test_reads_that_fail_now_and_then_change_nothing(
    make_loader: MakeLoader, list_source: Any, images: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    clean = [rows(step) for step in make_loader(list_source(images)).steps()]
    with caplog.at_level(logging.WARNING):
        flaky = list(make_loader(list_source(images, flaky={3: 3, 8: 1, 15: 2})).steps())
    assert [rows(step) for step in flaky] == clean
    assert not any(batch.quarantined for step in flaky for batch in step)
    assert caplog.text.count("is tried again") == 6


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_reads_that_keep_failing_stop_the_run_and_quarantine_nobody(
    make_loader: MakeLoader, list_source: Any, images: list[bytes], num_workers: int
) -> None:
    loader = make_loader(list_source(images, flaky={3: 10**6}), num_workers=num_workers)
    with pytest.raises(OSError, match=r"reading 'sample-3' of list failed 4 times.*goes on where it stopped"):
        list(loader.steps())


# Evaluation ----------------------------------------------------------------------------------------------------------


def test_evaluation_goes_through_the_source_in_order(
    list_source: Any, images: list[bytes], layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    transform = ImageTransform(16, crop_scale=(0.5, 1.0), flip=True)
    batches = EvaluationBatches(Captioning("?"), transform, Collator(layout, three), batch_size=4)
    with caplog.at_level(logging.WARNING):
        pairs = list(batches(list_source(images, broken={2}), 10, False))
    assert [len(records) for records, _ in pairs] == [4, 4, 1]
    keys = [record.key for records, _ in pairs for record in records]
    assert keys == [f"sample-{index}" for index in range(10) if index != 2]
    assert keys == [key for _, batch in pairs for key in batch.sample_ids]
    assert "sample-2" in caplog.text
    assert rows([pairs[0][1]])[0][2] == "?caption 0"
    plain = ImageTransform(16)(images[0])
    assert torch.equal(pairs[0][1].visual.pixels[0], plain), "evaluation draws nothing"
    assert sum(len(records) for records, _ in batches(list_source(images), None, True)) == 21
    _, prompts = next(batches(list_source(images), 1, True))
    assert rows([prompts])[0][2] == "??"
