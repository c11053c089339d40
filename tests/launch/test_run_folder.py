"""Which folder a run gets, and when an old one is resumed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vlmtrain.config.stored import read_config
from vlmtrain.launch import run_folder
from vlmtrain.launch.run_folder import choose_folder, is_finished, move_aside, open_folder

CONFIG: dict[str, Any] = {"experiment": "toy", "seed": 0, "run_dir": None, "tracker": {}}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start(config: dict[str, Any], start_fresh: bool = False) -> Path:
    choice = choose_folder(config, start_fresh)
    open_folder(choice, config)
    return choice.folder


def finish(folder: Path, state: str = "done") -> None:
    (folder / "summary.json").write_text(json.dumps({"state": state}))


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "2999-01-01_00-00-00")


def test_the_same_command_resumes_an_unfinished_run() -> None:
    assert start(CONFIG) == start(CONFIG)
    assert "resuming" in choose_folder(CONFIG, False).note


def test_killed_before_the_configuration_was_written_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    named = CONFIG | {"run_dir": "mine"}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "write_config", killed)
        with pytest.raises(KeyboardInterrupt):
            start(named)
    assert choose_folder(named, False).note == "new run in mine"
    assert (start(named) / "logs").is_dir()


def test_a_stopped_run_is_not_finished() -> None:
    folder = start(CONFIG)
    finish(folder, "stopped")
    assert not is_finished(folder)
    assert choose_folder(CONFIG, False).folder == folder


def test_a_finished_run_makes_room_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = start(CONFIG)
    finish(folder)
    later(monkeypatch)
    choice = choose_folder(CONFIG, False)
    assert choice.folder != folder
    assert "finished" in choice.note


def test_another_configuration_or_fresh_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = start(CONFIG)
    later(monkeypatch)
    assert choose_folder(CONFIG | {"seed": 1}, False).folder != folder
    assert choose_folder(CONFIG, True).folder != folder


def test_harmless_changes_resume_and_are_written() -> None:
    folder = start(CONFIG)
    assert start(CONFIG | {"tracker": {"x": {}}}) == folder
    assert read_config(folder)["tracker"] == {"x": {}}


def test_latest_points_to_the_newest() -> None:
    folder = start(CONFIG)
    assert Path("runs/latest").resolve() == folder.resolve()
    elsewhere = start(CONFIG | {"run_dir": "other/place"})
    assert Path("runs/latest").resolve() == elsewhere.resolve()
    assert not os.path.isabs(os.readlink("runs/latest"))


def test_a_chosen_folder_is_used_and_resumed() -> None:
    config = CONFIG | {"run_dir": "mine"}
    assert start(config) == start(config) == Path("mine")


def test_a_changed_configuration_in_a_chosen_folder_lists_what_differs() -> None:
    start(CONFIG | {"run_dir": "mine"})
    with pytest.raises(ValueError, match=r"(?s)seed: 0 -> 1.*--fresh"):
        choose_folder(CONFIG | {"run_dir": "mine", "seed": 1}, False)
    assert choose_folder(CONFIG | {"run_dir": "mine", "seed": 1}, True).folder == Path("mine")


def test_a_folder_of_other_things_is_not_touched() -> None:
    Path("mine").mkdir()
    (Path("mine") / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        choose_folder(CONFIG | {"run_dir": "mine"}, False)
    with pytest.raises(ValueError, match="is a file"):
        choose_folder(CONFIG | {"run_dir": "mine/thesis.tex"}, False)


def test_moving_aside_deletes_nothing() -> None:
    folder = start(CONFIG | {"run_dir": "mine"})
    aside = move_aside(folder)
    assert (aside / "config.yaml").is_file() and not folder.exists()
