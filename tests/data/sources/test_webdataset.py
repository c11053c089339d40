"""Shards are read at random, and never more or less of them than there is (fault matrix F19, F26, F43, F44)."""

import io
import json
import logging
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.tar_members import BrokenTar, tar_members
from vlmtrain.data.sources.webdataset import WebDataset

WriteShard = Callable[[Path, dict[str, bytes]], Path]


@pytest.fixture
def shards(tmp_path: Path, write_shard: WriteShard) -> Path:
    """Two shards of five samples."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(2):
        members = {}
        for number in range(shard * 5, shard * 5 + 5):
            members[f"{number:04d}.jpg"] = f"image {number}".encode() * 50
            members[f"{number:04d}.txt"] = f"text {number}".encode()
            members[f"{number:04d}.json"] = json.dumps({"captions": [f"caption {number}"], "page": number}).encode()
        write_shard(folder / f"train-{shard:06d}.tar", members)
    return folder


def test_reads_every_sample_at_random(shards: Path) -> None:
    source = WebDataset(str(shards))
    assert len(source) == 10
    for index in (7, 0, 9, 4, 5):
        record = source.read(index)
        assert record.key == source.key(index) == f"train-{index // 5:06d}/{index:04d}"
        assert record.image == f"image {index}".encode() * 50
        assert record.captions == [f"caption {index}"]
        assert record.extra == {"page": index}
    with pytest.raises(IndexError):
        source.read(10)


def test_takes_a_file_or_a_pattern(shards: Path) -> None:
    assert len(WebDataset(str(shards / "train-000001.tar"))) == 5
    assert len(WebDataset(str(shards / "train-*.tar"))) == 10


def test_text_member_is_the_caption_where_json_has_none(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(tmp_path / "a.tar", {"x.PNG": b"i", "x.txt": b" a caption\n", "x.json": b'{"width": 3}'})
    record = WebDataset(str(tmp_path)).read(0)
    assert (record.image, record.captions, record.extra) == (b"i", ["a caption"], {"width": 3})


def test_second_start_reads_the_notes_and_a_copy_of_the_source_the_files(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = WebDataset(str(shards))
    monkeypatch.setattr("vlmtrain.data.sources.shards.sha256_of", lambda path: pytest.fail("read again"))
    second = WebDataset(str(shards))
    assert second.fingerprint == first.fingerprint
    second.read(0)
    copy = pickle.loads(pickle.dumps(second))
    assert copy.read(8) == first.read(8)


def test_index_of_a_folder_that_cannot_be_written_goes_to_the_cache(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shards / ".vlmtrain").write_text("a file where the folder should be")
    WebDataset(str(shards))
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "vlmtrain"
    assert len(list(cache.glob("*.shard.json"))) == 2
    monkeypatch.setattr("vlmtrain.data.sources.shards.sha256_of", lambda path: pytest.fail("read again"))
    assert len(WebDataset(str(shards))) == 10


def test_damaged_notes_are_made_anew(shards: Path) -> None:
    WebDataset(str(shards))
    for notes in (shards / ".vlmtrain").iterdir():
        notes.write_text('{"version": 1, "sta')
    assert len(WebDataset(str(shards))) == 10


def test_one_changed_byte_changes_the_fingerprint(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = WebDataset(str(shards)).fingerprint
    path = shards / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert WebDataset(str(shards)).fingerprint != before
    assert "train-000000.tar has changed since it was indexed" in caplog.text


def test_fingerprint_is_of_the_content_not_of_the_place(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "copy")
    assert WebDataset(str(tmp_path / "copy")).fingerprint == WebDataset(str(shards)).fingerprint


def test_an_added_shard_changes_the_fingerprint(shards: Path, write_shard: WriteShard) -> None:
    before = WebDataset(str(shards)).fingerprint
    write_shard(shards / "train-000002.tar", {"n.jpg": b"new", "n.txt": b"new"})
    assert WebDataset(str(shards)).fingerprint != before


@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_shard_cut_off_anywhere_is_named(shards: Path, share: float) -> None:
    path = shards / "train-000001.tar"
    content = path.read_bytes()
    end = content.rstrip(b"\0")
    path.write_bytes(content[: int(share * len(end))])
    with pytest.raises(ValueError, match=r"train-000001\.tar.*(cut off|empty).*on_broken_shard=skip"):
        WebDataset(str(shards))


def test_shard_cut_between_two_samples_is_named(shards: Path) -> None:
    """The cut that tarfile and webdataset take for the end."""
    path = shards / "train-000001.tar"
    with path.open("rb") as archive:
        boundary = [member.offset for member in tar_members(archive)][6] - 512
    path.write_bytes(path.read_bytes()[:boundary])
    with tarfile.open(path) as archive:
        assert len(archive.getmembers()) == 6
    with pytest.raises(ValueError, match="the mark that ends an archive is missing"):
        WebDataset(str(shards))


def test_skipping_says_how_many_readable_samples_went(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = shards / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:7000])
    with caplog.at_level(logging.WARNING):
        source = WebDataset(str(shards), on_broken_shard="skip")
    assert len(source) == 5
    assert source.left_out == {"train-000001.tar": 1}
    assert "left out, with 1 readable samples" in caplog.text


def test_empty_shards(tmp_path: Path, write_shard: WriteShard) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.tar: it is empty \(0 bytes\)"):
        WebDataset(str(tmp_path))
    write_shard(tmp_path / "a.tar", {})
    with pytest.raises(ValueError, match=r"a\.tar: it holds no sample"):
        WebDataset(str(tmp_path))
    with pytest.raises(ValueError, match="none of the 1 shards can be read"):
        WebDataset(str(tmp_path), on_broken_shard="skip")


def test_shard_replaced_by_another_is_named(shards: Path) -> None:
    shutil.copy(shards / "train-000000.tar", shards / "train-000001.tar")
    with pytest.raises(ValueError, match=r"train-000001\.tar: it is, byte for byte, train-000000\.tar again"):
        WebDataset(str(shards))
    assert WebDataset(str(shards), on_broken_shard="skip").left_out == {"train-000001.tar": 5}


def test_missing_number_is_named(shards: Path) -> None:
    (shards / "train-000001.tar").rename(shards / "train-000003.tar")
    with pytest.raises(ValueError, match=r"2 numbered shards are missing.*train-000001\.tar, train-000002\.tar"):
        WebDataset(str(shards))
    assert len(WebDataset(str(shards), on_broken_shard="skip")) == 10


def test_shard_that_changes_under_the_run_is_noticed(shards: Path) -> None:
    source = WebDataset(str(shards))
    path = shards / "train-000000.tar"
    path.write_bytes(path.read_bytes() + b"\0" * 512)
    with pytest.raises(ValueError, match=r"train-000000\.tar has changed since it was indexed"):
        source.read(0)


@pytest.mark.parametrize("content", [b"<html>404</html>" * 100, os.urandom(4096), b"\x1f\x8b" + bytes(2000)])
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tar: .*(no tar header|checksum)"):
        WebDataset(str(tmp_path))


def test_pickles_and_paths_are_never_touched(tmp_path: Path, write_shard: WriteShard) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/harm",)

    harmful = pickle.dumps(Harmful())
    names = ["a.pyd", "a.pkl", "a.pickle", "a.pth", "a.npy", "a.ten", "../../outside.pyd", "/etc/absolute.pkl"]
    members = {"a.jpg": b"image", "a.txt": b"text", **dict.fromkeys(names, harmful)}
    write_shard(tmp_path / "a.tar", members)
    source = WebDataset(str(tmp_path))
    assert [source.read(index).key for index in range(len(source))] == ["a/a"]
    assert not (tmp_path / "harm").exists() and not (tmp_path.parent / "outside.pyd").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_special_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        member = tarfile.TarInfo("a.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        shard.addfile(member)
    with pytest.raises(ValueError, match=r"'a\.jpg' is a link or a special file"):
        WebDataset(str(tmp_path))


@pytest.mark.parametrize("path", ["pipe:touch harm", "http://127.0.0.1/a.tar", "s3://bucket/a.tar", "file:///a.tar"])
def test_only_local_paths_are_read(path: str) -> None:
    with pytest.raises(ValueError, match="not a local path"):
        WebDataset(path)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_folders_in_all_dialects(tmp_path: Path, format: int) -> None:
    long = "folder/" * 12 + "a" * 90 if format == tarfile.USTAR_FORMAT else "folder/" * 30 + "ä" * 120
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as shard:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        shard.addfile(folder)
        for suffix, content in (("jpg", b"image"), ("txt", b"text")):
            member = tarfile.TarInfo(f"{long}.{suffix}")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    record = WebDataset(str(tmp_path)).read(0)
    assert (record.key, record.image, record.captions) == (f"a/{long}", b"image", ["text"])


def test_broken_samples_are_named(tmp_path: Path, write_shard: WriteShard) -> None:
    write_shard(
        tmp_path / "a.tar",
        {
            "1.txt": b"no image",
            "2.jpg": b"i",
            "2.json": b'{"caption": ',
            "3.jpg": b"i",
            "3.json": b"[" * 100_000,
            "4.jpg": b"i",
            "4.txt": b"\xff\xfe",
            "5.jpg": b"i",
            "5.json": b'{"caption": 5}',
            "6.jpg": b"i",
        },
    )
    source = WebDataset(str(tmp_path))
    reasons = ["no image member", "not valid JSON", "nested too deeply", "utf-8", "'caption' must be"]
    for index, reason in enumerate(reasons):
        with pytest.raises(BrokenSample, match=reason) as fault:
            source.read(index)
        assert fault.value.key == f"a/{index + 1}"
    assert source.read(5).captions == []


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.jpg": b"", "b.jpg": b"", "a.txt": b""}, "members of sample 'a' do not lie together"),
        ({"a.jpg": b"", "a.png": b""}, "sample 'a' has two images"),
    ],
)
def test_ambiguous_members_are_refused(
    tmp_path: Path, write_shard: WriteShard, members: dict[str, bytes], reason: str
) -> None:
    write_shard(tmp_path / "x.tar", members)
    with pytest.raises(ValueError, match=reason):
        WebDataset(str(tmp_path))


@given(flips=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=6), cut=st.integers(0, 10_240))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_archives_are_listed_or_refused(
    tmp_path: Path, write_shard: WriteShard, flips: list[tuple[int, int]], cut: int
) -> None:
    path = write_shard(tmp_path / "a.tar", {f"{name}.jpg": b"x" * 600 for name in "abc"})
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[place] = value
    path.write_bytes(content[:cut])
    try:
        with path.open("rb") as archive:
            for member in tar_members(archive):
                assert 0 < member.offset <= member.offset + member.size <= cut
    except BrokenTar as fault:
        assert str(fault)
