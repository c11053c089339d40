"""Tables as the datasets library writes them."""

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.parquet import Parquet


def write_table(path: Path, first: int, rows: int, **columns: list[object]) -> Path:
    numbers = range(first, first + rows)
    content: dict[str, list[object]] = {
        "image": [{"bytes": f"image {number}".encode(), "path": None} for number in numbers],
        "captions": [[f"caption {number}", "second"] for number in numbers],
        "scene": [json.dumps({"number": number}) for number in numbers],
    }
    pq.write_table(pa.table({**content, **columns}), path, row_group_size=3)
    return path


def test_reads_rows_of_several_files_and_groups(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", 0, 7)
    write_table(tmp_path / "b.parquet", 7, 4)
    source = pickle.loads(pickle.dumps(Parquet(str(tmp_path), json_columns=["scene"])))
    assert len(source) == 11
    for index in (10, 0, 6, 7, 3):
        record = source.read(index)
        assert record.key == source.key(index)
        assert record.image == f"image {index}".encode()
        assert record.captions == [f"caption {index}", "second"]
        assert record.extra == {"scene": {"number": index}}
    assert len({source.key(index) for index in range(11)}) == 11
    with pytest.raises(IndexError):
        source.read(11)


def test_plain_bytes_and_single_captions(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"], "caption": ["one"]}), tmp_path / "a.parquet")
    record = Parquet(str(tmp_path)).read(0)
    assert (record.image, record.captions) == (b"x", ["one"])


def test_image_outside_the_table_is_not_followed(tmp_path: Path) -> None:
    images = [{"bytes": None, "path": "/etc/passwd"}] * 2
    write_table(tmp_path / "a.parquet", 0, 2, image=images)
    with pytest.raises(BrokenSample, match="no bytes"):
        Parquet(str(tmp_path)).read(0)


def test_damage_is_named(tmp_path: Path) -> None:
    whole = write_table(tmp_path / "a.parquet", 0, 7).read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.parquet").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.parquet is not a whole parquet file"):
            Parquet(str(tmp_path))
    pq.write_table(pa.table({"picture": [b"x"], "caption": ["one"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="columns picture, caption: it needs 'image'"):
        Parquet(str(tmp_path))
    write_table(tmp_path / "a.parquet", 0, 0)
    with pytest.raises(ValueError, match="no row"):
        Parquet(str(tmp_path))


def test_fingerprint_and_change_under_the_run(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", 0, 7)
    source = Parquet(str(tmp_path))
    assert Parquet(str(tmp_path)).fingerprint == source.fingerprint
    write_table(tmp_path / "a.parquet", 1, 7)
    assert Parquet(str(tmp_path)).fingerprint != source.fingerprint
    with pytest.raises(ValueError, match=r"a\.parquet has changed"):
        source.read(0)
