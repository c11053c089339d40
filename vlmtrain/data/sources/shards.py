"""Indexes one tar shard: which samples it holds and where their members lie."""

import logging
from dataclasses import dataclass
from pathlib import Path

from vlmtrain.data.sources.index_cache import file_stamp, recall, remember, sha256_of
from vlmtrain.data.sources.tar_members import BrokenTar, tar_members

logger = logging.getLogger(__name__)

KINDS = {"jpg": 0, "jpeg": 0, "png": 0, "webp": 0, "txt": 1, "json": 2}  # suffix -> image, text or JSON
_NUM_KINDS = 3
_NOTES = "shard"
_VERSION = 1

Spans = list[tuple[int, int]]  # per kind: offset, length; (0, 0) where the sample has no such member


@dataclass(frozen=True)
class Shard:
    """What is known of a shard."""

    path: Path
    stamp: dict[str, int]
    sha256: str
    keys: list[str]
    spans: list[Spans]


class BrokenShard(ValueError):
    """A whole shard cannot be used."""

    def __init__(self, path: Path, reason: str, num_readable: int) -> None:
        super().__init__(f"shard {path}: {reason}")
        self.num_readable = num_readable  # samples that lie complete in it, all the same


def index_shard(path: Path) -> Shard:
    """From notes if the file has not been written since, else by reading it whole.  BrokenShard if it is damaged."""
    if not path.is_file():
        raise BrokenShard(path, "it is not a regular file", 0)
    stamp = file_stamp(path)
    notes = recall(path, _NOTES)
    if notes is not None and notes.get("version") == _VERSION and notes.get("stamp") == stamp:
        spans = [[(span[0], span[1]) for span in sample] for sample in notes["spans"]]
        return Shard(path, stamp, notes["sha256"], notes["keys"], spans)
    keys, spans = _read_members(path)
    shard = Shard(path, stamp, sha256_of(path), keys, spans)
    if notes is not None and notes.get("sha256") not in (None, shard.sha256):
        logger.warning(
            "shard %s has changed since it was indexed: it had %d samples, it has %d",
            path,
            len(notes["keys"]),
            len(keys),
        )
    remember(
        path,
        _NOTES,
        {"version": _VERSION, "stamp": stamp, "sha256": shard.sha256, "keys": keys, "spans": spans},
    )
    return shard


def _read_members(path: Path) -> tuple[list[str], list[Spans]]:
    keys: list[str] = []
    spans: list[Spans] = []
    seen: set[str] = set()
    kinds: set[int] = set()
    try:
        with path.open("rb") as archive:
            for member in tar_members(archive):
                key, _, suffix = _split(member.name)
                kind = KINDS.get(suffix.lower())
                if kind is None:
                    continue
                if not keys or keys[-1] != key:
                    if key in seen:
                        raise BrokenTar(f"the members of sample {key!r} do not lie together")
                    seen.add(key)
                    keys.append(key)
                    spans.append([(0, 0)] * _NUM_KINDS)
                    kinds = set()
                if kind in kinds:
                    raise BrokenTar(f"sample {key!r} has two images, texts or JSON members")
                kinds.add(kind)
                spans[-1][kind] = (member.offset, member.size)
    except BrokenTar as error:
        raise BrokenShard(path, str(error), max(0, len(keys) - 1)) from None
    if not keys:
        known = ", ".join(f".{suffix}" for suffix in KINDS)
        raise BrokenShard(path, f"it holds no sample: no member ends in {known}", 0)
    return keys, spans


def _split(name: str) -> tuple[str, str, str]:
    """ "folder/a.b.jpg" -> ("folder/a", ".", "b.jpg"): the key ends at the first dot, as in webdataset."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not stem:  # .hidden, and the ._x that macOS adds
        return name, "", ""
    return folder + slash + stem, dot, suffix
