"""Tar shards in webdataset's layout: KEY.jpg, KEY.txt and KEY.json side by side, read at random by an index."""

import hashlib
import logging
import re
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.fields import captions_in, other_fields, parse_object
from vlmtrain.data.sources.files import OpenFiles, find_files
from vlmtrain.data.sources.shards import BrokenShard, Shard, index_shard

logger = logging.getLogger(__name__)

OnBrokenShard = Literal["stop", "skip"]

_MAX_IMAGE_BYTES = 256 << 20
_MAX_TEXT_BYTES = 16 << 20
_IMAGE, _TEXT, _JSON = range(3)


class WebDataset:
    """The samples of the shards that `path` means: a folder, one .tar, or a pattern such as folder/train-*.tar.

    Captions are "captions" or "caption" of the JSON member, else the text member.  Nothing is ever extracted or
    unpickled: members of other kinds are not looked at.  A shard that is cut off, empty, damaged, missing in the
    numbering, or a copy of another one stops the run at its start; with `on_broken_shard="skip"` it is left out, and
    `left_out` says how many readable samples went with it.
    """

    def __init__(self, path: str, on_broken_shard: OnBrokenShard = "stop") -> None:
        if on_broken_shard not in ("stop", "skip"):
            raise ValueError(f"on_broken_shard={on_broken_shard!r} is unknown: use stop or skip")
        self.name = path
        self.left_out: dict[str, int] = {}
        files = find_files(path, ".tar")
        if gap := _gap(files):
            self._object(gap, on_broken_shard, str(Path(path)), 0)
        shards = self._index(files, on_broken_shard)
        if not shards:
            raise ValueError(f"{path}: none of the {len(files)} shards can be read")
        self._paths = [shard.path for shard in shards]
        self._stamps = [shard.stamp for shard in shards]
        self._starts = np.cumsum([0, *(len(shard.keys) for shard in shards)])
        self._keys: NDArray[np.bytes_] = np.array([key.encode() for shard in shards for key in shard.keys])
        self._spans = np.array([spans for shard in shards for spans in shard.spans], dtype=np.int64)  # [n, kind, 2]
        self.fingerprint = hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return f"{self._paths[self._shard_of(index)].stem}/{self._keys[index].decode()}"

    def read(self, index: int) -> Record:
        key = self.key(index)
        image = self._member(index, key, _IMAGE, _MAX_IMAGE_BYTES)
        if image is None:
            raise BrokenSample(key, f"it has no image member in {self._paths[self._shard_of(index)]}")
        text = self._member(index, key, _TEXT, _MAX_TEXT_BYTES)
        fields = self._member(index, key, _JSON, _MAX_TEXT_BYTES)
        try:
            values = parse_object(fields) if fields is not None else {}
            captions = captions_in(values) or ([text.decode("utf-8").strip()] if text is not None else [])
        except ValueError as error:
            raise BrokenSample(key, f"its text or JSON member: {error}") from None
        return Record(key, [image], captions, other_fields(values))

    def _shard_of(self, index: int) -> int:
        if not 0 <= index < len(self._keys):
            raise IndexError(f"{self.name} has {len(self)} samples, there is no sample {index}")
        return int(np.searchsorted(self._starts, index, side="right")) - 1

    def _member(self, index: int, key: str, kind: int, max_bytes: int) -> bytes | None:
        offset, length = self._spans[index, kind].tolist()
        if offset == 0:
            return None
        if length > max_bytes:
            raise BrokenSample(key, f"a member has {length} bytes, at most {max_bytes} are read")
        shard = self._shard_of(index)
        return self._files.read(self._paths[shard], offset, length, self._stamps[shard])

    def _index(self, files: list[Path], on_broken_shard: OnBrokenShard) -> list[Shard]:
        shards: list[Shard] = []
        by_content: dict[str, Path] = {}
        for path in files:
            try:
                shard = index_shard(path)
                if shard.sha256 in by_content:
                    reason = f"it is, byte for byte, {by_content[shard.sha256].name} again"
                    raise BrokenShard(path, reason, len(shard.keys))
            except BrokenShard as error:
                self._object(str(error), on_broken_shard, path.name, error.num_readable)
                continue
            by_content[shard.sha256] = path
            shards.append(shard)
        return shards

    def _object(self, fault: str, on_broken_shard: OnBrokenShard, name: str, num_readable: int) -> None:
        if on_broken_shard == "stop":
            raise ValueError(f"{fault}. Fetch the shard again, or leave it out with data.on_broken_shard=skip.")
        self.left_out[name] = num_readable
        logger.warning("left out, with %d readable samples in it: %s", num_readable, fault)


def _gap(files: list[Path]) -> str:
    """What is missing in shards numbered like train-000000.tar; empty where nothing is, or there are no numbers."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for path in files:
        if match := re.fullmatch(r"(.*?)(\d+)", path.stem):
            numbers.setdefault((match[1], len(match[2])), set()).add(int(match[2]))
    missing = [
        f"{prefix}{number:0{digits}d}.tar"
        for (prefix, digits), present in numbers.items()
        for number in range(min(present), max(present))
        if number not in present
    ]
    if not missing:
        return ""
    return f"{len(missing)} numbered shards are missing in {files[0].parent}: {', '.join(missing[:5])}"
