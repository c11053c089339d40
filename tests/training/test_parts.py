"""Checkpoints in parts: every rank writes what it holds, and anybody reads the whole."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from toy_comparison import JOB, STEP, assert_same_run
from training_toy import ToyModel, build_trainer, join, start

from vlmtrain.training.checkpoint import newest_valid
from vlmtrain.training.engines.part import Part, flat_part, whole_part
from vlmtrain.training.hand_over import EVERYTHING, load_part
from vlmtrain.training.manifest import read_manifest
from vlmtrain.training.saved import groups_of, read_group
from vlmtrain.training.signals import Signals

GROUPS = ["connector", "ema", "head", "optimizer", "scale"]


def assert_same(folder: Path, alone: Path, tolerance: float) -> None:
    assert sorted(groups_of(folder / STEP)) == GROUPS
    assert_same_run(folder, alone, tolerance)


@pytest.mark.parametrize(
    ("engine", "world"),
    [("fsdp2", 2), ("zero2", 2), ("zero3", 2), pytest.param("fsdp2_copies", 4, marks=pytest.mark.slow)],
)
def test_parts_are_the_whole_and_no_more(engine: str, world: int, alone: Path, tmp_path: Path) -> None:
    """Of two copies of everything only the first is written."""
    assert join(start(tmp_path, world, engine=engine, accumulate=4 // world, in_parts=True, **JOB)) == [0] * world
    assert_same(tmp_path, alone, 1e-5)
    folder = tmp_path / STEP
    assert read_manifest(folder)["layout"] == "parts" and not list(folder.glob("*.safetensors"))
    sizes = {
        file.name: sum(value.numel() for value in load_file(file).values()) for file in folder.glob("optimizer/*.s*")
    }
    total = sum(value.numel() for value in read_group(folder, "optimizer").values())
    assert sum(sizes.values()) == total, "nothing is written twice"
    assert len(sizes) == 2 and min(sizes.values()) > total / 4, "the ranks share the work"


def test_a_run_goes_on_in_parts_and_whole_by_turns(alone: Path, tmp_path: Path) -> None:
    """Three ranks, which divide nothing evenly; one; two of another engine, which take the flat parts apart anew."""
    turns = [("fsdp2", 3, 2, True), ("zero3", 2, 4, True), ("ddp", 1, 5, False), ("zero3", 2, 6, True)]
    for engine, world, until, in_parts in turns:
        job = {**JOB, "max_steps": until, "in_parts": in_parts, "size": 12, "accumulate": 1}
        assert join(start(tmp_path / "turns", world, engine=engine, **job)) == [0] * world, engine
    assert join(start(tmp_path / "alone", 1, **{**JOB, "size": 12})) == [0]
    assert_same(tmp_path / "turns", tmp_path / "alone", 1e-6)


@pytest.fixture(scope="module")
def in_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    assert join(start(folder, 2, engine="fsdp2", in_parts=True, **JOB)) == [0, 0]
    return folder


def test_torch_reads_what_fsdp2_wrote(in_parts: Path) -> None:
    """Blocks of rows with their places: a checkpoint of torch.distributed.checkpoint, without us."""
    from torch.distributed.checkpoint import load
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    wanted = read_group(in_parts / STEP, "head")
    tensors = {name: torch.full_like(value, float("nan")) for name, value in wanted.items()}
    load(tensors, storage_reader=HuggingFaceStorageReader(str(in_parts / STEP / "head")), no_dist=True)
    for name, value in wanted.items():
        assert torch.equal(tensors[name], value), name
    with safe_open(in_parts / STEP / "head/part-00002-of-00002.safetensors", "pt") as file:
        assert file.get_tensor("head.embed.weight").shape == (8, 8)  # of 17 rows


def test_a_later_stage_takes_what_parts_hold(in_parts: Path) -> None:
    model, connector = ToyModel(), ToyModel().connector
    report = load_part(in_parts / STEP, "connector", connector)
    assert sorted(report.matched) == sorted(connector.state_dict()) and not report.missing and not report.unexpected
    for name, value in read_group(in_parts / STEP, "connector").items():
        assert torch.equal(connector.state_dict()[name.removeprefix("connector.")], value)
    assert "scale" in load_part(in_parts / STEP, EVERYTHING, model).matched
    assert float(model.scale.detach()) == float(read_group(in_parts / STEP, "scale")["scale"]) != 2.0


@pytest.mark.parametrize("damage", ["absent", "flipped"])
@pytest.mark.parametrize("file", ["connector/part-00002-of-00002.safetensors", "optimizer/shapes.json"])
def test_a_damaged_part_is_seen(
    in_parts: Path, file: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(in_parts / "checkpoints/toy", tmp_path / "toy"))
    path = folder / "step-00000006" / file
    content = path.read_bytes()
    path.unlink() if damage == "absent" else path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    newest = newest_valid(folder)
    assert newest is not None and newest.name == "step-00000004"
    (line,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert file in line
    if file.startswith("connector"):
        with pytest.raises(ValueError, match=file):
            load_part(folder / "step-00000006", "connector", ToyModel().connector)


def test_a_rank_whose_disk_is_full_keeps_all_from_publishing(tmp_path: Path) -> None:
    """Rank 1 cannot write at step 4: all know, nothing is published, training goes on and the next save is good."""
    for asynchronously in (False, True):
        folder = tmp_path / str(asynchronously)
        job = {**JOB, "in_parts": True, "asynchronously": asynchronously, "keep": 9}
        full = ("step-00000004", "part-00002-of-00002.safetensors")
        assert join(start(folder, 2, engine="fsdp2", full=full, **job)) == [0, 0]
        assert sorted(path.name for path in (folder / "checkpoints/toy").iterdir()) == [
            "step-00000002",
            "step-00000006",
        ]


def test_one_process_may_write_parts_too(alone: Path, tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path, in_parts=True, **JOB)
    trainer.train(Signals())
    assert_same(tmp_path, alone, 1e-5)
    assert json.loads((tmp_path / STEP / "scale/shapes.json").read_text()) == {"scale": []}
    assert build_trainer(tmp_path, **{**JOB, "max_steps": 9}).resume()


def test_a_part_says_where_it_lies() -> None:
    value = torch.arange(6.0).view(2, 3)
    assert whole_part(value, True) == Part((2, 3), (0, 0), value)
    assert whole_part(value, False).values is None
    assert flat_part((2, 3), 4, value.flatten()[4:]).offsets == (4,)
    assert flat_part((2, 3), 6, value.flatten()[6:]).values is None
