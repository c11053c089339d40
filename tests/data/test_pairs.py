"""The user's own folder: recognised, split, or refused with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlmtrain.data.pairs import Pairs
from vlmtrain.data.sources.base import Source


def keys(source: Source) -> set[str]:
    return {source.key(index) for index in range(len(source))}


def test_folder_of_photographs(tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    folder = write_pairs(tmp_path / "photos", 60)
    data = Pairs(str(folder), held_out=0.2)
    held_out = data.evaluation["held_out"]
    assert isinstance(data.train, Source) and isinstance(held_out, Source)
    assert not keys(data.train) & keys(held_out) and len(data.train) + len(held_out) == 60
    assert 4 <= len(held_out) <= 22
    record = held_out.read(0)
    assert record.key == held_out.key(0) and record.captions[0].startswith("picture number")
    assert "photos" in data.train.name and data.train.fingerprint != held_out.fingerprint


def test_choice_is_stable_when_data_is_added(tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    folder = write_pairs(tmp_path / "photos", 60)
    before = keys(Pairs(str(folder), held_out=0.2).evaluation["held_out"])
    with (folder / "captions.jsonl").open("a") as file:
        for number in range(60, 90):
            shutil.copy(folder / "images/0.jpg", folder / f"images/{number}.jpg")
            file.write(json.dumps({"image": f"images/{number}.jpg", "caption": "new"}) + "\n")
    after = keys(Pairs(str(folder), held_out=0.2).evaluation["held_out"])
    old = {f"images/{number}.jpg" for number in range(60)}
    assert after & old == before and after - old


def test_captions_of_one_image_stay_on_one_side(tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    folder = write_pairs(tmp_path / "photos", 40)
    lines = (folder / "captions.jsonl").read_text()
    (folder / "captions.jsonl").write_text(lines * 3)
    data = Pairs(str(folder), held_out=0.3)
    assert not keys(data.train) & keys(data.evaluation["held_out"])


def test_something_is_always_held_out_unless_nothing_shall_be(tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    folder = write_pairs(tmp_path / "photos", 5)
    assert len(Pairs(str(folder), held_out=1e-9).evaluation["held_out"]) == 1
    assert Pairs(str(folder), held_out=0).evaluation == {} and len(Pairs(str(folder), held_out=0).train) == 5
    with pytest.raises(ValueError, match=r"held_out=1\.5 must be a share"):
        Pairs(str(folder), held_out=1.5)
    single = write_pairs(tmp_path / "single", 1)
    with pytest.raises(ValueError, match="1 samples all held out"):
        Pairs(str(single))


def test_formats_are_recognised(tmp_path: Path, write_shard: Callable[..., Path], jpeg: Callable[..., bytes]) -> None:
    (tmp_path / "tars").mkdir()
    members = {f"{n}.{suffix}": content for n in range(6) for suffix, content in (("jpg", jpeg(n)), ("txt", b"a"))}
    write_shard(tmp_path / "tars/0.tar", members)
    (tmp_path / "tables").mkdir()
    pq.write_table(pa.table({"image": [jpeg()] * 6, "caption": ["a"] * 6}), tmp_path / "tables/a.parquet")
    for path in ("tars", "tars/0.tar", "tars/*.tar", "tables", "tables/a.parquet"):
        data = Pairs(str(tmp_path / path))
        assert len(data.train) + len(data.evaluation["held_out"]) == 6, path
    assert len(Pairs(str(tmp_path / "tars"), format="webdataset").train) == 5


def test_two_formats_in_one_folder_must_be_told_apart(tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    folder = write_pairs(tmp_path / "photos", 6)
    (folder / "x.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 formats, jsonl and webdataset: say which with data\.format=jsonl"):
        Pairs(str(folder))
    assert len(Pairs(str(folder), format="jsonl").train) == 5


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda place: None, "there is nothing at data.path="),
        (lambda place: place.mkdir(), r"looked for captions\.jsonl, \*\.tar and \*\.parquet in .*, which is empty"),
        (lambda place: (place.mkdir(), (place / "1.jpg").touch()), "which holds none of these"),
        (lambda place: place.write_text("x"), r"is no folder, \.jsonl, \.tar or \.parquet"),
    ],
    ids=["missing", "empty", "no captions", "a file"],
)
def test_missing_data_says_what_was_looked_for_and_what_would_work(
    tmp_path: Path, prepare: Callable[[Path], Any], message: str
) -> None:
    prepare(tmp_path / "data")
    with pytest.raises(ValueError, match=message) as fault:
        Pairs(str(tmp_path / "data"))
    assert '{"image": "dogs/1.jpg", "caption": "a brown dog on the beach"}' in str(fault.value)


def test_the_lines_that_the_error_offers_work(tmp_path: Path, jpeg: Callable[..., bytes]) -> None:
    folder = tmp_path / "photos"
    (folder / "dogs").mkdir(parents=True)
    for number in range(4):
        (folder / f"dogs/{number}.jpg").write_bytes(jpeg(number))
        (folder / f"dogs/{number}.txt").write_text(f"dog {number}\n")
    with pytest.raises(ValueError) as fault:
        Pairs(str(folder))
    program = str(fault.value).partition("lines of Python can write:\n")[2]
    program = "\n".join(line.removeprefix("    ") for line in program.splitlines())
    exec(program.replace("FOLDER", str(folder)), {})
    data = Pairs(str(folder))
    assert len(data.train) == 3 and data.train.read(0).captions[0].startswith("dog ")


def test_wrong_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format='csv' is unknown"):
        Pairs(str(tmp_path), format="csv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data\.path names no folder"):
        Pairs("")
