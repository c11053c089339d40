"""Every cut of a step gives the same samples, pixels and words; faults are counted, replaced and bounded."""

import logging
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vlmtrain.batch import Batch, TextBatch
from vlmtrain.data.collate import Collator
from vlmtrain.data.forms.captioning import Captioning
from vlmtrain.data.forms.masked import Masked
from vlmtrain.data.forms.text_documents import TextDocuments
from vlmtrain.data.loading import EvaluationBatches, LoadingPlan, StepLoader
from vlmtrain.data.scenes.text import document
from vlmtrain.data.sources.documents import MadeDocuments
from vlmtrain.data.sources.webdataset import WebDataset
from vlmtrain.data.transforms import ImageTransform
from vlmtrain.language_models.tokenizers import load_tokenizer
from vlmtrain.layout import Layout, NothingToLearn, Part, Text
from vlmtrain.layouts.causal import CausalLayout
from vlmtrain.layouts.masked import MaskedPairLayout
from vlmtrain.nn.tile_sizes import Squares

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
        transform = ImageTransform(Squares(16), crop_scale=(0.5, 1.0), flip=True)
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


@pytest.fixture
def masked_loader(tmp_path: Path) -> MakeLoader:
    from transformers import BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cap", "##tion", *map(str, range(21))]
    BertTokenizerFast(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path)
    layout = MaskedPairLayout(load_tokenizer(str(tmp_path)), 8)

    def make(source: Any, **changes: Any) -> StepLoader:
        form = Masked(Captioning(), share=0.5)
        return StepLoader(source, form, ImageTransform(Squares(8)), Collator(layout, three), replace(PLAN, **changes))

    return make


def hidden_of(step: list[Batch]) -> list[tuple[str, list[int], list[int]]]:
    """Of each sample its name, what is shown of it and what is to be predicted; padding left out."""
    found = []
    for batch in step:
        masked = batch.text.masked
        assert masked is not None and masked.supervised == sum(masked.supervised_per_sample)
        rows_of_batch = zip(batch.sample_ids, masked.attention_mask, masked.input_ids, masked.targets, strict=True)
        found += [(name, ids[mask].tolist(), targets[mask].tolist()) for name, mask, ids, targets in rows_of_batch]
    return found


@pytest.mark.parametrize(("world_size", "accumulate", "num_workers"), [(2, 1, 0), (1, 4, 1), (2, 2, 0)])
def test_words_are_hidden_alike_on_any_cut_and_after_resuming(
    masked_loader: MakeLoader, list_source: Any, images: list[bytes], world_size: int, accumulate: int, num_workers: int
) -> None:
    source = list_source(images)
    whole = [hidden_of(step) for step in masked_loader(source).steps()]
    cut = {"world_size": world_size, "accumulate": accumulate, "num_workers": num_workers}
    ranks = [list(masked_loader(source, rank=rank, **cut).steps(start=2)) for rank in range(world_size)]
    for step, wanted in enumerate(whole[2:]):
        pieces = [ranks[rank][step][number] for number in range(accumulate) for rank in range(world_size)]
        assert hidden_of(pieces) == wanted
    of_one = [(shown, targets) for step in whole for name, shown, targets in step if name == whole[0][0][0]]
    assert len(of_one) > 1 and len({str(each) for each in of_one}) > 1, "other words when a sample comes again"


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
    loader = StepLoader(source, TextDocuments(), ImageTransform(Squares(16)), Collator(layout, three), PLAN)
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
    """F18 in small: half a JPEG, an empty file, zeros, HTML, a wrong extension, a bomb; and an empty caption."""
    good = jpeg(0, 40, 30)
    faults = {7: good[: len(good) // 2], 19: b"", 33: bytes(900), 40: b"<html></html>", 55: b"a text, not an image"}
    faults[61] = png_header(20_000, 20_000)
    members = {}
    for number in range(80):
        members[f"{number:03d}.jpg"] = faults.get(number, good)
        members[f"{number:03d}.txt"] = b" " if number == 66 else b"a caption"
    write_shard(tmp_path / "s.tar", members)
    plan = replace(PLAN, batch_size=16, max_steps=5)
    source = WebDataset(str(tmp_path))
    loader = StepLoader(source, Captioning(), ImageTransform(Squares(16)), Collator(layout, three), plan)
    batches = [batch for step in loader.steps() for batch in step]
    found = {entry["id"]: entry["reason"] for batch in batches for entry in batch.quarantined}
    assert sorted(found) == [f"s/{number:03d}" for number in sorted({*faults, 66})]
    assert "caption" in found["s/066"] and "empty" in found["s/019"] and "not a JPEG" in found["s/040"]
    assert "image bomb" in found["s/061"]
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


def png_header(width: int, height: int) -> bytes:
    """What a bomb is known by: its size stands in the first chunk; the pixels never get a chance."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(999))
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (body, pixels)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class Picky(Layout):
    """Finds nothing to learn in some captions, as a tokenizer does that knows none of their letters."""

    def __init__(self, layout: Layout, unknown: set[str]) -> None:
        self.layout = layout
        self.unknown = unknown

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        for row, parts in enumerate(samples):
            if any(isinstance(part, Text) and part.string in self.unknown for part in parts):
                raise NothingToLearn(row, "Nothing to learn here.")
        return self.layout.write(samples, placeholders_per_item)

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        return self.layout.write_prompts(samples, placeholders_per_item)

    def read(self, token_ids: list[int]) -> str:
        return self.layout.read(token_ids)


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 2)])
def test_captions_without_a_target_are_replaced_like_broken_images(
    list_source: Any, images: list[bytes], layout: Layout, world_size: int, accumulate: int
) -> None:
    """One caption that the tokenizer cannot spell must not end a run of millions."""

    def make(source: Any, **changes: Any) -> StepLoader:
        collator = Collator(Picky(layout, {"caption 3", "caption 7"}), three)
        return StepLoader(source, Captioning(), ImageTransform(Squares(16)), collator, replace(PLAN, **changes))

    source = list_source(images, broken={2, 5})
    steps = whole_steps(make, source, world_size, accumulate)
    assert not {"sample-2", "sample-3", "sample-5", "sample-7"} & {key for step in steps for key, _, _ in step}
    assert steps == whole_steps(make, source, 1, 1)
    batches = [batch for step in make(source).steps() for batch in step]
    found = {entry["id"]: entry["reason"] for batch in batches for entry in batch.quarantined}
    assert sorted(found) == ["sample-2", "sample-3", "sample-5", "sample-7"]
    assert found["sample-7"] == "Nothing to learn here." and found["sample-5"] == "planted"


def test_all_labels_masked_stops_with_the_reason(list_source: Any, images: list[bytes], byte_tokenizer: str) -> None:
    """TinyLLaVA, LLaVA, InternVL: a template that masks every label trained on loss 0 without a word."""
    layout = CausalLayout(load_tokenizer(byte_tokenizer), max_tokens=4)
    form = Captioning(prompt="a prompt that leaves no room for an answer")
    loader = StepLoader(list_source(images), form, ImageTransform(Squares(16)), Collator(layout, three), PLAN)
    with pytest.raises(
        ValueError, match=r"101 samples in a row.*its prompt alone fills all 4 tokens.*Raise max_tokens"
    ):
        next(loader.steps())


def test_captions_over_the_limit_are_cut_and_counted(
    list_source: Any, images: list[bytes], byte_tokenizer: str, caplog: pytest.LogCaptureFixture
) -> None:
    layout = CausalLayout(load_tokenizer(byte_tokenizer), max_tokens=4)
    loader = StepLoader(list_source(images), Captioning(), ImageTransform(Squares(16)), Collator(layout, three), PLAN)
    batch = next(loader.steps())[0]
    assert batch.text.truncated == len(batch) == 8 and not batch.quarantined
    evaluated = EvaluationBatches(Captioning(), ImageTransform(Squares(16)), Collator(layout, three), batch_size=4)
    with caplog.at_level(logging.WARNING):
        assert len(list(evaluated(list_source(images), 6, False))) == 2
    assert [record.message for record in caplog.records] == [
        "6 texts of list are longer than max_tokens and were cut for the evaluation"
    ]


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
    transform = ImageTransform(Squares(16), crop_scale=(0.5, 1.0), flip=True)
    batches = EvaluationBatches(Captioning("?"), transform, Collator(layout, three), batch_size=4)
    with caplog.at_level(logging.WARNING):
        pairs = list(batches(list_source(images, broken={2}), 10, False))
    assert [len(records) for records, _ in pairs] == [4, 4, 1]
    keys = [record.key for records, _ in pairs for record in records]
    assert keys == [f"sample-{index}" for index in range(10) if index != 2]
    assert keys == [key for _, batch in pairs for key in batch.sample_ids]
    assert "sample-2" in caplog.text
    assert rows([pairs[0][1]])[0][2] == "?caption 0"
    plain = ImageTransform(Squares(16))(images[0])
    assert torch.equal(pairs[0][1].visual.pixels[0], plain), "evaluation draws nothing"
    assert sum(len(records) for records, _ in batches(list_source(images), None, True)) == 21
    _, prompts = next(batches(list_source(images), 1, True))
    assert rows([prompts])[0][2] == "??"


def test_evaluation_leaves_out_captions_without_a_target(
    list_source: Any, images: list[bytes], layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    """After hours of training, one odd caption must not cost the evaluation."""
    picky = Picky(layout, {f"caption {index}" for index in (1, 4, 5, 6, 7)})
    batches = EvaluationBatches(Captioning(), ImageTransform(Squares(16)), Collator(picky, three), batch_size=4)
    with caplog.at_level(logging.WARNING):
        pairs = list(batches(list_source(images), 9, False))
    assert [[record.key for record in records] for records, _ in pairs] == [
        ["sample-0", "sample-2", "sample-3"],
        ["sample-8"],
    ]
    assert all([record.key for record in records] == batch.sample_ids for records, batch in pairs)
    assert caplog.text.count("Nothing to learn here") == 5
    assert sum(len(records) for records, _ in batches(list_source(images), 9, True)) == 9, "prompts need no target"
