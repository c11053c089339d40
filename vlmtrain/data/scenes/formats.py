"""Writes runs of examples in the formats that real collections come in; the same run gives the same bytes."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmtrain.data.scenes.records import Record, make_record


@dataclass(frozen=True, slots=True)
class Run:
    """A run of consecutive examples of one split that one process writes; number counts the runs of the split."""

    folder: str
    seed: int
    split: str
    first: int
    last: int
    number: int
    runs: int
    image_size: int

    def records(self) -> list[Record]:
        return [make_record(self.seed, self.split, index, self.image_size) for index in range(self.first, self.last)]


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is now on disk, by its path inside the data set."""

    path: str
    size: int
    sha256: str


def write_webdataset(run: Run) -> list[Written]:
    """A tar shard of KEY.jpg, KEY.txt with one caption, and KEY.json with everything else."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.USTAR_FORMAT) as shard:
        for record in run.records():
            _add(shard, f"{record.key}.jpg", record.jpeg)
            _add(shard, f"{record.key}.txt", record.captions[0].encode())
            _add(shard, f"{record.key}.json", json.dumps(record.annotations(), sort_keys=True).encode())
    return [_write(run, f"{run.split}-{run.number:06d}.tar", held.getvalue())]


def write_jsonl(run: Run) -> list[Written]:
    """Pictures in SPLIT/images, and a part of SPLIT/captions.jsonl that join_jsonl puts together."""
    written, lines = [], []
    for record in run.records():
        image = f"images/{record.key}.jpg"
        written.append(_write(run, f"{run.split}/{image}", record.jpeg))
        lines.append(json.dumps({"image": image, **record.annotations()}, sort_keys=True) + "\n")
    written.append(_write(run, f"{run.split}/captions.jsonl.{run.number:06d}", "".join(lines).encode()))
    return written


def join_jsonl(runs: Sequence[Run], name: str = "captions.jsonl") -> Written:
    """Joins the parts of a split, in order, into its captions.jsonl; the parts are removed."""
    run = runs[0]
    parts = [Path(run.folder, run.split, f"{name}.{each.number:06d}") for each in runs]
    written = _write(run, f"{run.split}/{name}", b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return written


def write_parquet(run: Run) -> list[Written]:
    """A table laid out and labelled as the datasets library does for pictures, in short groups of rows."""
    records = run.records()
    columns = {
        "image": pa.array([{"bytes": record.jpeg, "path": f"{record.key}.jpg"} for record in records], _IMAGE),
        "captions": pa.array([list(record.captions) for record in records], pa.list_(pa.string())),
        "questions": pa.array([record.annotations()["questions"] for record in records], pa.list_(_QUESTION)),
        "scene": pa.array([json.dumps(record.scene.to_json(), sort_keys=True) for record in records], pa.string()),
    }
    labels = {"huggingface": json.dumps({"info": {"features": _FEATURES}}, sort_keys=True)}
    held = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(labels), held, row_group_size=_ROWS_PER_GROUP)
    return [_write(run, f"{run.split}-{run.number:05d}-of-{run.runs:05d}.parquet", held.getvalue())]


@dataclass(frozen=True, slots=True)
class Example:
    """One line of JSON, and the files beside it by the paths that the line names them by."""

    line: dict[str, Any]
    files: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class LinesFormat:
    """Examples of several pictures: their files, and one line of JSON each in SPLIT/`file`.

    `make` is asked with seed, split, index and image size; `name` tells all else that decides the bytes, for it is what
    a prepared folder is known by.
    """

    name: str
    file: str
    make: Callable[[int, str, int, int], Example]

    def __call__(self, run: Run) -> list[Written]:
        """Writes the files of a run and its part of the lines, which join_jsonl puts together."""
        written, lines = [], []
        for index in range(run.first, run.last):
            example = self.make(run.seed, run.split, index, run.image_size)
            written += [_write(run, f"{run.split}/{path}", content) for path, content in example.files.items()]
            lines.append(json.dumps(example.line, sort_keys=True) + "\n")
        written.append(_write(run, f"{run.split}/{self.file}.{run.number:06d}", "".join(lines).encode()))
        return written


WRITERS: dict[str, Callable[[Run], list[Written]]] = {
    "webdataset": write_webdataset,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}

_ROWS_PER_GROUP = 100
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_QUESTION = pa.struct([("text", pa.string()), ("answer", pa.string()), ("kind", pa.string())])
_STRING = {"dtype": "string", "_type": "Value"}
_FEATURES = {
    "image": {"_type": "Image"},
    "captions": [_STRING],
    "questions": [{"text": _STRING, "answer": _STRING, "kind": _STRING}],
    "scene": _STRING,
}


def _add(shard: tarfile.TarFile, name: str, content: bytes) -> None:
    """TarInfo's own defaults leave time, owner and group at nought, so that equal content gives an equal tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    shard.addfile(member, io.BytesIO(content))


def _write(run: Run, path: str, content: bytes) -> Written:
    target = Path(run.folder, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return Written(path, len(content), hashlib.sha256(content).hexdigest())
