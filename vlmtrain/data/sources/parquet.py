"""Parquet tables as the datasets library writes them: image {bytes, path}, captions, and more columns."""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.fields import CAPTION_FIELDS, captions_in, other_fields
from vlmtrain.data.sources.files import find_files
from vlmtrain.data.sources.index_cache import file_stamp, recall, remember, sha256_of

_NOTES = "table"
_CACHED_BYTES = 256 << 20


class Parquet:
    """The rows of the tables that `path` means: a folder, one .parquet, or a pattern such as folder/train-*.parquet.

    A row is read with its whole row group, the last of which are kept up to 256 MB: tables for training in random order
    should have groups of some hundred rows (`row_group_size=100`).  `json_columns` names the columns whose strings are
    JSON.  Images must be inside the table: a row with only a path is a broken sample.
    """

    def __init__(self, path: str, json_columns: tuple[str, ...] | list[str] = ()) -> None:
        self.name = path
        self._json_columns = tuple(json_columns)
        self._paths = find_files(path, ".parquet")
        self._stamps = [file_stamp(path) for path in self._paths]
        groups = [(file, group, rows) for file, path in enumerate(self._paths) for group, rows in _row_groups(path)]
        self._groups = [(file, group) for file, group, _ in groups]
        self._starts = np.cumsum([0, *(rows for _, _, rows in groups)])
        if len(self) == 0:
            raise ValueError(f"{path}: the {len(self._paths)} tables have no row")
        self.fingerprint = hashlib.sha256("".join(map(_digest, self._paths)).encode()).hexdigest()
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def key(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, there is no row {index}")
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        file, group = self._groups[number]
        return f"{self._paths[file].stem}/{group}/{index - int(self._starts[number])}"

    def read(self, index: int) -> Record:
        key = self.key(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        row = self._group(number).slice(index - int(self._starts[number]), 1).to_pylist()[0]
        image = row.get("image")
        data = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(data, bytes):
            raise BrokenSample(key, "its image column holds no bytes")
        try:
            values = {name: self._value(name, value) for name, value in row.items()}
            return Record(key, [data], captions_in(values), other_fields(values))
        except ValueError as error:
            raise BrokenSample(key, str(error)) from None

    def _value(self, name: str, value: object) -> object:
        return json.loads(value) if name in self._json_columns and isinstance(value, str) else value

    def _group(self, number: int) -> pa.Table:
        if number not in self._cache:
            file, group = self._groups[number]
            path = self._paths[file]
            if file_stamp(path) != self._stamps[file]:
                raise ValueError(f"{path} has changed since it was indexed: start the run again to look at it afresh")
            self._cache[number] = pq.ParquetFile(path).read_row_group(group)
            while len(self._cache) > 1 and sum(table.nbytes for table in self._cache.values()) > _CACHED_BYTES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(number)
        return self._cache[number]


def _row_groups(path: Path) -> list[tuple[int, int]]:
    """(number, rows) of each row group; ValueError for what is no table of images with captions."""
    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowInvalid, pa.ArrowIOError) as error:
        raise ValueError(f"{path} is not a whole parquet file: {str(error)[:120]}. Fetch it again.") from None
    names = table.schema_arrow.names
    if "image" not in names or not set(CAPTION_FIELDS) & set(names):
        raise ValueError(
            f"{path} has the columns {', '.join(names)}: it needs 'image' and one of {', '.join(CAPTION_FIELDS)}"
        )
    return [(group, table.metadata.row_group(group).num_rows) for group in range(table.num_row_groups)]


def _digest(path: Path) -> str:
    """sha256 of the file, from notes if it has not been written since."""
    stamp = file_stamp(path)
    notes = recall(path, _NOTES)
    if notes is not None and notes.get("stamp") == stamp and isinstance(notes.get("sha256"), str):
        return str(notes["sha256"])
    digest = sha256_of(path)
    remember(path, _NOTES, {"stamp": stamp, "sha256": digest})
    return digest
