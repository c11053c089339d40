import hashlib
import io
import json
import multiprocessing
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlmtrain.data.scenes.formats import WRITERS
from vlmtrain.data.scenes.records import Record, make_record
from vlmtrain.data.scenes.render import render
from vlmtrain.data.scenes.world import Scene, make_scene
from vlmtrain.data.scenes.write import Layout, prepare, verify, write_split

SMALL = Layout(image_size=64, images_per_file=4)
COUNTS = {"train": 6, "test": 3}
FORMATS = sorted(WRITERS)

Example = tuple[bytes, dict[str, object]]


def read_webdataset(folder: Path, split: str) -> list[Example]:
    found = []
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as shard:
            members = {member.name: shard.extractfile(member).read() for member in shard.getmembers()}
        for key in sorted({name.split(".")[0] for name in members}):
            annotations = json.loads(members[f"{key}.json"])
            assert members[f"{key}.txt"].decode() == annotations["captions"][0]
            found.append((members[f"{key}.jpg"], annotations))
    return found


def read_jsonl(folder: Path, split: str) -> list[Example]:
    lines = (folder / split / "captions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [((folder / split / record.pop("image")).read_bytes(), record) for record in records]


def read_parquet(folder: Path, split: str) -> list[Example]:
    rows = [row for path in sorted(folder.glob(f"{split}-*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [
        (
            row["image"]["bytes"],
            {"captions": row["captions"], "questions": row["questions"], "scene": json.loads(row["scene"])},
        )
        for row in rows
    ]


READERS = {"webdataset": read_webdataset, "jsonl": read_jsonl, "parquet": read_parquet}


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_reads_back_equal(tmp_path: Path, format: str) -> None:
    folder = prepare(tmp_path / "scenes", format, 0, COUNTS, 1, SMALL)
    for split, count in COUNTS.items():
        examples = READERS[format](folder, split)
        assert len(examples) == count
        for index, (jpeg, annotations) in enumerate(examples):
            record = make_record(0, split, index, SMALL.image_size)
            assert jpeg == record.jpeg and annotations == json.loads(json.dumps(record.annotations()))
            assert Scene.from_json(annotations["scene"]) == make_scene(0, split, index)
    verify(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_request_gives_the_same_bytes_with_any_number_of_processes(tmp_path: Path, format: str) -> None:
    processes = 2 if format == "jsonl" else 1
    first = prepare(tmp_path / "first", format, 0, COUNTS, 1, SMALL)
    second = prepare(tmp_path / "second", format, 0, COUNTS, processes, SMALL)
    assert all_bytes(first) == all_bytes(second)


@pytest.mark.parametrize("format", FORMATS)
def test_the_manifest_lists_every_file_with_its_hash(tmp_path: Path, format: str) -> None:
    folder = prepare(tmp_path / "scenes", format, 7, {"train": 5}, 1, SMALL)
    manifest = json.loads((folder / "dataset.json").read_text())
    assert (manifest["seed"], manifest["format"], manifest["counts"]) == (7, format, {"train": 5})
    files = {path: hashlib.sha256(content).hexdigest() for path, content in all_bytes(folder).items()}
    del files["dataset.json"]
    assert {path: each["sha256"] for path, each in manifest["files"].items()} == files


def test_the_datasets_library_reads_the_parquet_files(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "scenes", "parquet", 0, {"train": 5}, 1, SMALL)
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert table.num_rows == 5 and isinstance(table[0]["image"], Image.Image)
    assert table[0]["questions"][0].keys() == {"text", "answer", "kind"}


def test_pictures_survive_jpeg_and_captions_differ() -> None:
    record: Record = make_record(0, "train", 1, 128)
    decoded = np.asarray(Image.open(io.BytesIO(record.jpeg))).astype(int)
    assert np.abs(decoded - render(record.scene, 128)).mean() < 3
    assert len(set(record.captions)) == 5


def test_a_whole_folder_is_used_as_it_is(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "scenes", "webdataset", 0, COUNTS, 1, SMALL)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert prepare(folder, "webdataset", 0, COUNTS, 1, SMALL) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_two_processes_that_race_leave_one_whole_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    request = (tmp_path / "scenes", "webdataset", 0, COUNTS, 1, SMALL)
    racers = [context.Process(target=prepare, args=request) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(timeout=30)
    assert [racer.exitcode for racer in racers] == [0, 0]
    verify(tmp_path / "scenes")
    assert [path.name for path in tmp_path.iterdir()] == ["scenes"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("vlmtrain.data.scenes.write._write_manifest", fail)
    with pytest.raises(OSError, match="no space left"):
        prepare(tmp_path / "scenes", "jsonl", 0, COUNTS, 1, SMALL)
    assert not list(tmp_path.iterdir())


def test_another_or_a_broken_data_set_is_never_overwritten(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "scenes", "webdataset", 0, COUNTS, 1, SMALL)
    with pytest.raises(ValueError, match="seed 0 and not 1: remove it or choose another folder"):
        prepare(folder, "webdataset", 1, COUNTS, 1, SMALL)
    shard = folder / "train-000000.tar"
    content = shard.read_bytes()
    shard.write_bytes(b"x" + content[1:])
    with pytest.raises(ValueError, match="has changed since it was written"):
        verify(folder)
    shard.write_bytes(content[:100])
    with pytest.raises(ValueError, match="missing or cut short"):
        prepare(folder, "webdataset", 0, COUNTS, 1, SMALL)
    (folder / "dataset.json").unlink()
    with pytest.raises(ValueError, match=r"holds no dataset.json"):
        prepare(folder, "webdataset", 0, COUNTS, 1, SMALL)


def test_unusable_requests_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no format 'zip': use one of webdataset, jsonl, parquet"):
        prepare(tmp_path / "scenes", "zip", 0, COUNTS)
    with pytest.raises(ValueError, match="give a count"):
        prepare(tmp_path / "scenes", "jsonl", 0, {})
    with pytest.raises(ValueError, match="no split 'dev'"):
        write_split(tmp_path, "jsonl", 0, "dev", 3)
    with pytest.raises(ValueError, match="0 examples"):
        write_split(tmp_path, "jsonl", 0, "train", 0)
    assert not list(tmp_path.iterdir())
