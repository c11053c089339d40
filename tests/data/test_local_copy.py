"""The copy of the data on a node's own disk: whole or not there, made once, what the source is."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest

from vlmtrain.data import local_copy
from vlmtrain.data.local_copy import copy_to_node, with_local_copies
from vlmtrain.data.pairs import open_pairs
from vlmtrain.data.scenes_data import Scenes
from vlmtrain.data.sources.image_folder import ImageFolder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder with files, one of them below another folder, and notes of ours beside them."""
    folder = tmp_path / "shared"
    for name in ("a.bin", "b.bin", "below/c.bin", ".vlmtrain/a.bin.index.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 5000)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_copy_holds_the_same_files_without_our_notes(shared: Path, tmp_path: Path) -> None:
    copy = Path(copy_to_node(str(shared), tmp_path / "disk"))
    assert copy.is_relative_to(tmp_path / "disk")
    wanted = {name: data for name, data in contents(shared).items() if not name.startswith(".vlmtrain")}
    assert contents(copy) == wanted and len(wanted) == 3


def test_a_copy_is_made_once_and_other_data_get_another(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = copy_to_node(str(shared), tmp_path / "disk")
    copied: list[str] = []
    copy_file = local_copy._copy_file
    monkeypatch.setattr(
        local_copy, "_copy_file", lambda source, *rest: copied.append(source.name) or copy_file(source, *rest)
    )
    assert copy_to_node(str(shared), tmp_path / "disk") == first and not copied
    (shared / "a.bin").write_bytes(b"other")
    second = copy_to_node(str(shared), tmp_path / "disk")
    assert second != first and contents(Path(second))["a.bin"] == b"other"
    assert contents(Path(first))["a.bin"] != b"other", "a job that still reads the first copy is left alone"


def test_a_file_of_the_copy_that_was_touched_is_copied_again(shared: Path, tmp_path: Path) -> None:
    copy = Path(copy_to_node(str(shared), tmp_path / "disk"))
    (copy / "b.bin").write_bytes(b"half")
    kept = (copy / "a.bin").stat().st_ino
    assert copy_to_node(str(shared), tmp_path / "disk") == str(copy)
    assert contents(copy)["b.bin"] == contents(shared)["b.bin"]
    assert (copy / "a.bin").stat().st_ino == kept, "what was right did not come again"


def test_what_the_disk_garbles_is_refused(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_copy, "sha256_of", lambda path: "0" * 64)
    with pytest.raises(ValueError, match=r"a\.bin is not what was read from .*local_cache"):
        copy_to_node(str(shared), tmp_path / "disk")


def test_a_file_that_changes_while_it_is_copied_is_refused(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (shared / "a.bin").write_bytes(b"new") and fsync(number))
    with pytest.raises(ValueError, match="has changed while it was copied"):
        copy_to_node(str(shared), tmp_path / "disk")


def test_a_disk_without_room_is_told_with_both_sizes(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(local_copy.shutil, "disk_usage", lambda path: usage(1, 1, 5_000_000))
    with pytest.raises(ValueError, match=r"another 0 MB, and .* has 5 MB free"):
        copy_to_node(str(shared), tmp_path / "disk")


def test_processes_that_come_together_make_one_copy(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    copy_file = local_copy._copy_file

    def slowly(source: Path, *rest: object) -> None:
        copied.append(source.name)
        time.sleep(0.05)
        copy_file(source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(local_copy, "_copy_file", slowly)
    places: list[str] = []
    threads = [
        threading.Thread(target=lambda: places.append(copy_to_node(str(shared), tmp_path / "disk"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(places)) == 1 and len(places) == 4
    assert sorted(copied) == ["a.bin", "b.bin", "c.bin"]


def test_killed_while_it_copies_leaves_no_half_copy_and_no_lock(shared: Path, tmp_path: Path) -> None:
    """The first file is whole by then, and does not come again."""
    code = (
        "import os, sys; from pathlib import Path; from vlmtrain.data import local_copy\n"
        "copy_file, count = local_copy._copy_file, []\n"
        "def dying(source, target, told):\n"
        "    if count: target.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
        "    count.append(1); copy_file(source, target, told)\n"
        "local_copy._copy_file = dying\n"
        f"local_copy.copy_to_node({str(shared)!r}, Path({str(tmp_path / 'disk')!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert done.returncode == -signal.SIGKILL
    draft = next((tmp_path / "disk").glob("*.part"))
    kept = (draft / "a.bin").stat().st_ino
    copy = Path(copy_to_node(str(shared), tmp_path / "disk"))
    assert contents(copy)["b.bin"] == contents(shared)["b.bin"]
    assert (copy / "a.bin").stat().st_ino == kept
    assert not list((tmp_path / "disk").glob("*.part"))


def test_links_stay_links(shared: Path, tmp_path: Path) -> None:
    """What a source refuses because it leads out of its folder, it refuses of the copy."""
    (tmp_path / "elsewhere").write_bytes(b"secret")
    (shared / "out").symlink_to("../elsewhere")
    (shared / "within").symlink_to("below/c.bin")
    (shared / "tree").symlink_to("below", target_is_directory=True)
    copy = Path(copy_to_node(str(shared), tmp_path / "disk"))
    assert (copy / "out").is_symlink() and (copy / "out").resolve() == tmp_path / "elsewhere"
    assert (copy / "within").resolve() == copy / "below" / "c.bin"
    assert (copy / "tree" / "c.bin").read_bytes() == (shared / "below" / "c.bin").read_bytes()
    assert copy_to_node(str(shared), tmp_path / "disk") == str(copy)


def test_a_pattern_takes_its_files_alone_and_a_file_its_folder(shared: Path, tmp_path: Path) -> None:
    place = Path(copy_to_node(str(shared / "a*.bin"), tmp_path / "disk"))
    assert place.name == "a*.bin" and list(contents(place.parent)) == ["a.bin"]
    file = Path(copy_to_node(str(shared / "a.bin"), tmp_path / "disk"))
    assert file.name == "a.bin" and len(contents(file.parent)) == 3


def test_a_place_without_files_is_left_to_who_reads_it(tmp_path: Path) -> None:
    place = str(tmp_path / "nothing")
    assert copy_to_node(place, tmp_path / "disk") == place
    with pytest.raises(ValueError, match=place):
        open_pairs(place)


@pytest.mark.parametrize("format", ["webdataset", "jsonl", "parquet"])
def test_data_have_the_same_fingerprint_and_the_same_records(format: str, tmp_path: Path) -> None:
    chosen = {"format": format, "num_train": 6, "num_test": 2, "num_compositional": 2, "num_processes": 1}
    node = {"_target_": "Scenes", "folder": str(tmp_path / "shared"), **chosen}
    there = Scenes(node["folder"], **chosen)
    here_node = with_local_copies({"mixed": [node]}, tmp_path / "disk", ["path", "folder"])["mixed"][0]
    assert here_node["folder"].startswith(str(tmp_path / "disk")) and here_node["format"] == format
    here = Scenes(here_node["folder"], **chosen)
    assert here.train.fingerprint == there.train.fingerprint
    assert [here.train.key(index) for index in range(6)] == [there.train.key(index) for index in range(6)]
    assert [here.train.read(index) for index in range(6)] == [there.train.read(index) for index in range(6)]


def test_a_folder_of_images_has_the_same_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "images" / ".hidden").mkdir(parents=True)
    for name in ("a.jpg", ".hidden/b.png"):
        (tmp_path / "images" / name).write_bytes(b"picture")
    copy = copy_to_node(str(tmp_path / "images"), tmp_path / "disk")
    assert ImageFolder(copy).fingerprint == ImageFolder(str(tmp_path / "images")).fingerprint
