"""A folder of images with captions.jsonl: what is read, and what is never read (fault matrix F26, F44)."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.jsonl import JsonLines


def write_lines(folder: Path, *rows: object) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_reads_every_line(tmp_path: Path) -> None:
    folder = write_lines(
        tmp_path,
        {"image": "1.jpg", "caption": "ein Käfer", "width": 3},
        "",
        {"image": "sub folder/2.png", "captions": ["a", "b"]},
    )
    (folder / "sub folder").mkdir()
    (folder / "1.jpg").write_bytes(b"one")
    (folder / "sub folder/2.png").write_bytes(b"two")
    source = pickle.loads(pickle.dumps(JsonLines(str(folder))))
    assert len(source) == 2
    first, second = source.read(0), source.read(1)
    assert (first.key, first.image, first.captions, first.extra) == ("1.jpg", b"one", ["ein Käfer"], {"width": 3})
    assert (second.key, second.image, second.captions) == ("sub folder/2.png", b"two", ["a", "b"])
    assert len(JsonLines(str(folder / "captions.jsonl"))) == 2


@pytest.mark.parametrize(
    "image",
    [
        "../secret",
        "a/../../secret",
        "/etc/passwd",
        "..\\secret",
        "http://127.0.0.1/1.jpg",
        "file:///etc/passwd",
        "a\0b",
    ],
)
def test_paths_out_of_the_folder_stop_the_run_with_their_line(tmp_path: Path, image: str) -> None:
    folder = write_lines(tmp_path, {"image": "1.jpg", "caption": "x"}, {"image": image, "caption": "x"})
    with pytest.raises(ValueError, match=r"1 lines of .*captions.jsonl cannot be used: line 2: the image"):
        JsonLines(str(folder))


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/1.jpg").write_bytes(b"secret")
    folder = write_lines(tmp_path / "data", {"image": "1.jpg", "caption": "x"})
    (folder / "1.jpg").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"'1\.jpg' is a link out of"):
        JsonLines(str(folder))
    (folder / "1.jpg").unlink()
    write_lines(folder, {"image": "sub/1.jpg", "caption": "x"})
    (folder / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match=r"'sub' is a link out of"):
        JsonLines(str(folder))


def test_a_link_that_is_made_later_is_refused_when_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = write_lines(tmp_path / "data", {"image": "1.jpg", "caption": "x"})
    source = JsonLines(str(folder))
    (folder / "1.jpg").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="is a link out of"):
        source.read(0)


def test_links_inside_the_folder_and_a_linked_folder_are_fine(tmp_path: Path) -> None:
    folder = write_lines(tmp_path / "data", {"image": "1.jpg", "caption": "x"})
    (folder / "real.jpg").write_bytes(b"image")
    (folder / "1.jpg").symlink_to(folder / "real.jpg")
    (tmp_path / "link").symlink_to(folder)
    assert JsonLines(str(tmp_path / "link")).read(0).image == b"image"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"image": "1.jpg", "capt', "not valid JSON"),
        ("[1, 2]", "JSON object"),
        ('{"caption": "x"}', '"image" must be'),
        ('{"image": 5, "caption": "x"}', '"image" must be'),
        ('{"image": "1.jpg"}', 'no "caption" and no "captions"'),
        ('{"image": "1.jpg", "captions": "x y", "caption": 5, "captions": [1]}', "'captions' must be"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_broken_lines_stop_the_run_with_their_number(tmp_path: Path, line: str, reason: str) -> None:
    folder = write_lines(tmp_path, {"image": "1.jpg", "caption": "x"}, "", line, line)
    with pytest.raises(ValueError, match=rf"2 lines of .* line 3: .*{reason}.*; line 4"):
        JsonLines(str(folder))


def test_missing_images_and_odd_files_break_their_samples(tmp_path: Path) -> None:
    names = ["missing.jpg", "folder", "pipe", "huge.jpg"]
    folder = write_lines(tmp_path, *({"image": name, "caption": "x"} for name in names))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(300 << 20)  # a hole: it takes no space
    source = JsonLines(str(folder))
    for index, reason in enumerate(
        ["no such file", "not a regular file", "not a regular file", "314572800 bytes, more"]
    ):
        with pytest.raises(BrokenSample, match=reason):
            source.read(index)


def test_fingerprint_notices_lines_and_image_sizes(tmp_path: Path, write_pairs: Callable[..., Path]) -> None:
    folder = write_pairs(tmp_path / "data", 4)
    before = JsonLines(str(folder)).fingerprint
    assert JsonLines(str(folder)).fingerprint == before
    (folder / "images/2.jpg").write_bytes(b"shorter")
    after = JsonLines(str(folder)).fingerprint
    with (folder / "captions.jsonl").open("a") as file:
        file.write('{"image": "images/0.jpg", "caption": "again"}\n')
    assert len({before, after, JsonLines(str(folder)).fingerprint}) == 3


def test_empty_and_missing_files_say_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*captions\.jsonl(.|\n)*import json, pathlib"):
        JsonLines(str(tmp_path))
    (tmp_path / "captions.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="has no line"):
        JsonLines(str(tmp_path))
