"""Small data sets of known content, in the formats that users have."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vlmtrain.batch import TextBatch
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Layout, Part, Text


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leaves an index in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """(number, width, height) -> a JPEG file with noise of its own."""

    def make(number: int = 0, width: int = 24, height: int = 16, format: str = "JPEG") -> bytes:
        pixels = np.random.default_rng(number).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        held = io.BytesIO()
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(held, format, quality=90)
        return held.getvalue()

    return make


@pytest.fixture
def write_shard() -> Callable[[Path, dict[str, bytes]], Path]:
    """(path, member name -> content) -> the path, which is then a tar archive."""

    def write(path: Path, members: dict[str, bytes]) -> Path:
        with tarfile.open(path, "w") as shard:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def write_pairs(jpeg: Callable[..., bytes]) -> Callable[..., Path]:
    """(folder, number of pairs) -> a folder of JPEG files with captions.jsonl."""

    def write(folder: Path, num_pairs: int = 20) -> Path:
        (folder / "images").mkdir(parents=True)
        rows = []
        for number in range(num_pairs):
            (folder / f"images/{number}.jpg").write_bytes(jpeg(number))
            rows.append({"image": f"images/{number}.jpg", "caption": f"picture number {number}"})
        (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return write


class LettersLayout(Layout):
    """One token per letter: no tokenizer, nothing to download."""

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        rows = [
            [ord(letter) for part in parts if isinstance(part, Text) for letter in part.string] for parts in samples
        ]
        length = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        return TextBatch(ids, ids > 0, ids < 0)

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        return self.write([[Text("?"), *parts] for parts in samples], placeholders_per_item)

    def read(self, token_ids: list[int]) -> str:
        return "".join(chr(token) for token in token_ids if token)


@pytest.fixture
def layout() -> Layout:
    return LettersLayout()


class ListSource:
    """Records from memory; `broken` indices raise BrokenSample, `flaky` ones an OSError that often first."""

    name = "list"
    fingerprint = "0" * 64

    def __init__(
        self, images: list[bytes], broken: set[int] | None = None, flaky: dict[int, int] | None = None
    ) -> None:
        self.images, self.broken, self.flaky = images, broken or set(), flaky or {}

    def __len__(self) -> int:
        return len(self.images)

    def key(self, index: int) -> str:
        return f"sample-{index}"

    def read(self, index: int) -> Record:
        if self.flaky.get(index, 0) > 0:
            self.flaky[index] -= 1
            raise OSError(5, "Input/output error")
        if index in self.broken:
            raise BrokenSample(self.key(index), "planted")
        return Record(self.key(index), [self.images[index]], [f"caption {index}"])


@pytest.fixture
def list_source() -> type[ListSource]:
    return ListSource
