"""What the stages of a run are fed with."""

from pathlib import Path
from typing import Any

import pytest

from vlmtrain import run
from vlmtrain.config.compose import compose
from vlmtrain.config.stored import write_config
from vlmtrain.data.shuffled_images import ShuffledImages
from vlmtrain.run import open_run
from vlmtrain.stage import RunContext

TEXTS = "stages.language.data={_target_: vlmtrain.data.scenes_data.SceneTexts, num_train: 40, num_held_out: 4}"


def opened(folder: Path, *overrides: str) -> RunContext:
    return open_run(composed(folder, *overrides), folder)


def composed(folder: Path, *overrides: str) -> dict[str, Any]:
    few = [f"data.{name}=8" for name in ("num_train", "num_test", "num_compositional")]
    typed = ["experiment=blip2_opt", f"data.folder={folder}", *few, "data.num_processes=1", "trainer.batch_size=8"]
    return compose([*typed, *overrides]).config


def test_stages_share_the_data_of_the_run_unless_they_have_their_own(tmp_path: Path) -> None:
    shared = opened(tmp_path)
    assert shared.data["representation"] is shared.data["language"]
    apart = opened(tmp_path, TEXTS)
    assert len(apart.data["representation"].train) == 8 and len(apart.data["language"].train) == 40


def test_the_control_run_trains_on_other_images_and_is_evaluated_on_the_right_ones(tmp_path: Path) -> None:
    plain, control = opened(tmp_path).data["language"], opened(tmp_path, "shuffle_images=true").data["language"]
    assert isinstance(control.train, ShuffledImages) and control.train.fingerprint != plain.train.fingerprint
    assert control.train.read(0).captions == plain.train.read(0).captions
    assert control.train.read(0).image != plain.train.read(0).image
    assert control.evaluation["test"].read(0).image == plain.evaluation["test"].read(0).image


def test_data_are_read_from_the_nodes_own_disk_when_asked_for(tmp_path: Path) -> None:
    there = opened(tmp_path / "shared").data["language"]
    run = opened(tmp_path / "shared", f"launcher.local_cache={tmp_path / 'disk'}")
    here = run.data["language"]
    assert here.train.fingerprint == there.train.fingerprint and here is run.data["representation"]
    for split in here.evaluation.values():
        assert split.name.startswith(str(tmp_path / "disk")), "what is evaluated as well"
        assert split.read(0).image
    assert (
        opened(tmp_path / "shared", f"launcher.local_cache={tmp_path / 'other'}", "launcher.cached=[]")
        .data["language"]
        .train.name.startswith(str(tmp_path / "shared"))
    )


def test_a_batch_larger_than_a_later_stages_data_is_told_before_the_first_trains(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="64 samples and the data has 40"):
        opened(tmp_path, "stages.representation.trainer.batch_size=8", "stages.language.trainer.batch_size=64", TEXTS)


def test_a_process_may_end_with_an_earlier_stage_than_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    told: list[object] = []
    write_config(composed(tmp_path), tmp_path)
    monkeypatch.setattr(run, "_prepare_process", lambda config, folder: None)
    monkeypatch.setattr(run, "describe_start", lambda *facts: None)
    monkeypatch.setattr(run, "render_start", lambda summary: "")
    monkeypatch.setattr(run, "Stage", lambda name, section, context: name)
    monkeypatch.setattr(run, "_run_stage", lambda stage, journal, signals: trained.append(stage))
    monkeypatch.setattr(run, "_tell", lambda *facts: told.append(facts))
    run.train(tmp_path, "representation")
    assert trained == ["representation"] and not told, "the run is not over: no summary.json"
    run.train(tmp_path, "language")
    assert trained == ["representation", "representation", "language"] and len(told) == 1


def test_a_rank_that_sees_another_folder_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by F34: without a shared disk, rank 1 waited in silence for a file of rank 0."""
    monkeypatch.setattr(run, "SECONDS_FOR_A_FILE", 0.1)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match="has not come from rank 0: do all machines see this folder"):
        run._prepare_process({"trainer": {"threads": None}}, tmp_path)
