"""Checkpoints: damage is seen, kills and full disks are survived, later stages get what they ask for."""

import errno
import logging
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from training_toy import ToyModel, build_trainer

from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.checkpoint import Checkpoints, list_checkpoints, name_of, newest_valid
from vlmtrain.training.manifest import find_damage, read_manifest
from vlmtrain.training.publish import STAGING
from vlmtrain.training.signals import Signals
from vlmtrain.training.state import Progress, TrainingState, weights_hash
from vlmtrain.training.stops import NonFiniteTraining, SavingFails
from vlmtrain.training.trainer import Trainer

FILES = ("connector.safetensors", "head.safetensors", "scale.safetensors", "optimizer.safetensors", "ema.safetensors")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of a finished run: steps 9 and 12."""
    folder = tmp_path_factory.mktemp("run")
    build_trainer(folder, ema=True).train(Signals())
    return folder


@pytest.fixture
def run_folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "run"))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(bytes(content))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "absent": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one_byte_short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped_bit": flip_a_bit,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", [*FILES, "progress.json", "manifest.json"])
def test_falls_back_from_any_damage(run_folder: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = run_folder / "checkpoints/toy"
    DAMAGES[damage](folder / "step-00000012" / file)
    assert newest_valid(folder) == folder / "step-00000009"
    (line,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "step-00000012" in line and file in line


def test_resumes_past_a_damaged_checkpoint_and_writes_it_anew(run_folder: Path, published: Path) -> None:
    folder = run_folder / "checkpoints/toy"
    flip_a_bit(folder / "step-00000012/connector.safetensors")
    trainer = build_trainer(run_folder, ema=True)
    assert trainer.resume() and trainer.progress.step == 9 and trainer.progress.samples == 72
    trainer.train(Signals())
    for file in FILES:
        again, before = folder / "step-00000012" / file, published / "checkpoints/toy/step-00000012" / file
        assert again.read_bytes() == before.read_bytes()


def test_restoring_touches_no_file(run_folder: Path) -> None:
    files = sorted(path for path in (run_folder / "checkpoints").rglob("*") if path.is_file())
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    assert build_trainer(run_folder, ema=True).resume()
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before
    assert sorted(path for path in (run_folder / "checkpoints").rglob("*") if path.is_file()) == files


def test_only_trained_parts_and_only_safe_formats_are_written(published: Path) -> None:
    folder = published / "checkpoints/toy/step-00000012"
    assert {path.name for path in folder.iterdir()} == {*FILES, "progress.json", "manifest.json"}
    manifest = read_manifest(folder)
    assert manifest["step"] == 12 and manifest["world_size"] == 1 and "torch" in manifest["versions"]
    torch.manual_seed(0)
    assert manifest["frozen"] == {"encoder": {"source": "toy", "sha256": weights_hash(ToyModel().encoder)}}
    assert load_file(folder / "scale.safetensors").keys() == {"scale"}
    assert "connector.0.weight::exp_avg" in load_file(folder / "optimizer.safetensors")


def test_other_frozen_weights_are_refused(run_folder: Path) -> None:
    trainer = build_trainer(run_folder, ema=True)
    trainer.model.encoder.project.weight.data += 1
    with pytest.raises(ValueError, match="other frozen weights of encoder"):
        trainer.resume()


def test_other_data_or_another_configuration_is_not_resumed(tmp_path: Path) -> None:
    """The same step would see other samples: the run would be neither the old one nor a new one."""
    facts = {"config": "c0ffee", "data": "aaa"}

    def trainer_on(facts: dict[str, str]) -> Trainer:
        trainer = build_trainer(tmp_path, max_steps=3)
        trainer.checkpoints.facts = facts
        return trainer

    trainer_on(facts).train(Signals())
    with pytest.raises(ValueError, match=r"with other data \(data aaa then, bbb now\).*--fresh"):
        trainer_on({**facts, "data": "bbb"}).resume()
    with pytest.raises(ValueError, match=r"with other config and data"):
        trainer_on({"config": "dec0de", "data": "bbb"}).resume()
    assert trainer_on(facts).resume()


def test_no_room_for_two_checkpoints_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = build_trainer(tmp_path)
    trainer.checkpoints.require_room()
    state = trainer.checkpoints.state
    for free, is_enough in ((2 * state.size(), True), (2 * state.size() - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        if is_enough:
            trainer.checkpoints.require_room()
            continue
        with pytest.raises(ValueError, match=r"0\.0 GB free; two checkpoints need .* GB: make room, .*run_dir="):
            trainer.checkpoints.require_room()
    trainer.train(Signals())
    folder = trainer.checkpoints.newest_valid()
    assert folder is not None
    tensors = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert 0.9 * state.size() < tensors < 2 * state.size(), "a small model: names and counters weigh something too"


def test_every_file_is_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    trainer = build_trainer(tmp_path)
    trainer.progress.step = 1
    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    trainer.save()
    written = {path.name for path in (tmp_path / "checkpoints/toy/step-00000001").iterdir()}
    at = events.index("rename")
    assert set(events[:at]) == written | {f"{STAGING}step-00000001"}
    assert events[at - 2 : at + 2] == ["manifest.json", f"{STAGING}step-00000001", "rename", "toy"]


def _trained_on(run_folder: Path) -> Trainer:
    """Resumed at 9 with the newer checkpoint gone, trained to 12, not saved."""
    shutil.rmtree(run_folder / "checkpoints/toy/step-00000012")
    trainer = build_trainer(run_folder, ema=True)
    trainer.resume()
    trainer.actions = []
    trainer.train(Signals())
    return trainer


def _die_in_call(name: str, number: int, is_before: bool) -> None:
    """kill -9 this process at the `number`-th call of os.<name>."""
    real, calls = getattr(os, name), [0]

    def hooked(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] == number and is_before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments)
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, name, hooked)


def test_killed_inside_the_save(run_folder: Path, published: Path) -> None:
    """Before and after every fsync and rename: the newest valid one is the old one until the rename, then the new."""
    trainer = _trained_on(run_folder)
    folder = run_folder / "checkpoints/toy"
    moments = [("fsync", number) for number in range(1, 11)] + [("rename", 1), ("mkdir", 3)]
    killed = 0
    for name, number in moments:
        for is_before in (True, False):
            child = os.fork()
            if child == 0:
                _die_in_call(name, number, is_before)
                trainer.save()
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            killed += status == -signal.SIGKILL
            newest = newest_valid(folder)
            assert newest is not None and find_damage(newest) is None
            is_published = (name, number, is_before) in {("rename", 1, False), ("fsync", 9, True), ("fsync", 9, False)}
            assert newest.name == ("step-00000012" if is_published or status == 0 else "step-00000009")
            if newest.name == "step-00000012":
                for file in FILES:
                    before = published / "checkpoints/toy/step-00000012" / file
                    assert (newest / file).read_bytes() == before.read_bytes()
                shutil.rmtree(newest)
    assert killed == 2 * len(moments) - 2  # there is no tenth fsync
    trainer.save()
    assert not list(folder.glob(f"{STAGING}*"))


def _fail_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the `number`-th fsync, and free again after it."""
    real, calls = os.fsync, [0]

    def hooked(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] == number:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", hooked)


@pytest.mark.parametrize("number", [1, 2, 4, 6, 7, 8])
def test_training_goes_on_when_the_disk_is_full(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = build_trainer(tmp_path, ema=True, max_steps=6)
    _fail_at(9 + number, monkeypatch)  # in the second save, of step 6
    trainer.max_steps = 9
    trainer.train(Signals())
    names = [path.name for path in list_checkpoints(tmp_path / "checkpoints/toy")]
    assert names == ["step-00000009", "step-00000003"]
    assert sum("No space left" in record.message for record in caplog.records) == 1
    assert not list((tmp_path / "checkpoints/toy").glob(f"{STAGING}*"))


def test_a_real_file_size_limit_three_times_in_a_row_stops(tmp_path: Path) -> None:
    trainer = build_trainer(tmp_path)
    trainer.actions = trainer.actions[-1:]  # the logs would run into the limit as well
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(SavingFails, match="3 checkpoints in a row") as stopped:
            trainer.train(Signals())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert stopped.value.exit_code == 4 and trainer.progress.step == 9
    assert list((tmp_path / "checkpoints/toy").iterdir()) == []


@pytest.mark.parametrize("where", ["weight", "moment"])
def test_non_finite_state_is_never_published(tmp_path: Path, where: str) -> None:
    trainer = build_trainer(tmp_path, max_steps=3)
    trainer.actions = []
    trainer.train(Signals())
    weight = trainer.model.connector[0].weight
    poisoned = weight.data if where == "weight" else trainer.update.optimizer.state[weight]["exp_avg"]
    poisoned[0, 0] = float("inf")
    with pytest.raises(NonFiniteTraining, match=r"connector\.0\.weight"):
        trainer.save()
    assert list((tmp_path / "checkpoints/toy").iterdir()) == []


def test_published_checkpoints_are_never_overwritten(run_folder: Path) -> None:
    trainer = build_trainer(run_folder, ema=True)
    trainer.progress.step = 12
    path = run_folder / "checkpoints/toy/step-00000012/connector.safetensors"
    before = path.read_bytes(), path.stat().st_mtime_ns
    trainer.save()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


class Tiny(TrainingState):
    """A state of one small file, for many saves."""

    def __init__(self) -> None:
        model = nn.Linear(1, 1)
        super().__init__(model, torch.optim.SGD([{"params": list(model.parameters()), "names": ["weight", "bias"]}]))

    def gathered(self, progress: Progress):
        yield "progress.json", b"{}"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(marks=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=9), keep=st.integers(1, 4))
def test_retention_keeps_enough_valid_ones(
    tmp_path_factory: pytest.TempPathFactory, marks: list[tuple[bool, bool]], keep: int
) -> None:
    folder = tmp_path_factory.mktemp("retention") / "toy"
    checkpoints = Checkpoints(folder, Tiny(), build_accelerator("fp32"), keep=keep)
    valid: set[int] = set()
    for step, (is_torn, is_restarted) in enumerate(marks, start=1):
        if is_restarted:
            checkpoints = Checkpoints(folder, Tiny(), build_accelerator("fp32"), keep=keep)
        checkpoints.save(Progress(step))
        valid.add(step)
        present = {path.name for path in list_checkpoints(folder)}
        assert {name_of(each) for each in sorted(valid)[-max(keep, 2) :]} <= present
        valid = {each for each in valid if name_of(each) in present}
        assert len(valid) <= max(keep, 2)
        if is_torn:
            (folder / name_of(step) / "progress.json").write_bytes(b"")
            valid.discard(step)
