"""The user's own images with captions."""

from pathlib import Path
from typing import Literal

from vlmtrain.data.held_out import check_share, hold_out
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.files import find_files
from vlmtrain.data.sources.jsonl import CAPTIONS_FILE, LINES_TO_WRITE, JsonLines
from vlmtrain.data.sources.parquet import Parquet
from vlmtrain.data.sources.webdataset import OnBrokenShard, WebDataset

Format = Literal["auto", "webdataset", "jsonl", "parquet"]


class Pairs:
    """Images with captions at `path`; a share of them, chosen by a hash of their keys, is held out for evaluation.

    `path` is a folder with captions.jsonl, with .tar shards in webdataset's layout, or with .parquet tables.  The hash
    makes the choice stable: samples that are added later move none from one part to the other.
    """

    together = 1

    def __init__(
        self, path: str, held_out: float = 0.05, format: Format = "auto", on_broken_shard: OnBrokenShard = "stop"
    ) -> None:
        check_share(held_out)
        source = open_pairs(path, format, on_broken_shard)
        self.train, self.evaluation = hold_out(source, held_out)


def open_pairs(path: str, format: Format = "auto", on_broken_shard: OnBrokenShard = "stop") -> Source:
    """The source that reads what lies at `path`."""
    if format not in ("auto", "webdataset", "jsonl", "parquet"):
        raise ValueError(f"format={format!r} is unknown: use auto, webdataset, jsonl or parquet")
    if not path:
        raise ValueError(f"data.path names no folder. Give data.path=FOLDER: {LINES_TO_WRITE}")
    found = _recognise(Path(path).expanduser()) if format == "auto" else format
    if found == "webdataset":
        return WebDataset(path, on_broken_shard)
    return JsonLines(path) if found == "jsonl" else Parquet(path)


def _recognise(place: Path) -> Format:
    """The format of what lies there; ValueError that says what was looked for."""
    if place.is_dir():
        present: list[Format] = ["jsonl"] if (place / CAPTIONS_FILE).exists() else []
        present += ["webdataset"] if any(place.glob("*.tar")) else []
        present += ["parquet"] if any(place.glob("*.parquet")) else []
        if len(present) > 1:
            raise ValueError(
                f"{place.absolute()} holds data in {len(present)} formats, {' and '.join(present)}: "
                f"say which with data.format={present[0]}"
            )
        if present:
            return present[0]
        what = "is empty" if not any(place.iterdir()) else "holds none of these"
        raise ValueError(
            f"looked for captions.jsonl, *.tar and *.parquet in {place.absolute()}, which {what}: {LINES_TO_WRITE}"
        )
    suffix = place.suffix
    if not place.exists() and "*" not in place.name:
        raise ValueError(f"there is nothing at data.path={place.absolute()}: {LINES_TO_WRITE}")
    if suffix == ".jsonl":
        return "jsonl"
    formats: dict[str, Format] = {".tar": "webdataset", ".parquet": "parquet"}
    if suffix not in formats:
        raise ValueError(f"{place} is no folder, .jsonl, .tar or .parquet: {LINES_TO_WRITE}")
    find_files(str(place), suffix)
    return formats[suffix]
