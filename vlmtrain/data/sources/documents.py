"""Plain text for text-only language modelling: documents from a file, or made one by one."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.fields import captions_in, parse_object
from vlmtrain.data.sources.files import OpenFiles


class Documents:
    """The documents of a file: a .jsonl with {"text": ...} per line, or a .txt with one per line."""

    def __init__(self, path: str) -> None:
        self._file = Path(path).expanduser()
        if self._file.suffix not in (".jsonl", ".txt"):
            raise ValueError(f'{path}: documents are read from .jsonl with {{"text": ...}} per line, or .txt')
        if not self._file.is_file():
            raise ValueError(f"there is no file {self._file.absolute()}")
        self.name = path
        content = self._file.read_bytes()
        spans, position = [], 0
        for line in content.split(b"\n"):
            if line.strip():
                spans.append((position, len(line)))
            position += len(line) + 1
        if not spans:
            raise ValueError(f"{path} holds no document")
        self._spans = np.array(spans, dtype=np.int64)
        self.fingerprint = hashlib.sha256(content).hexdigest()
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self._spans)

    def key(self, index: int) -> str:
        return f"{self._file.stem}/{index}"

    def read(self, index: int) -> Record:
        offset, length = self._spans[index].tolist()
        line = self._files.read(self._file, offset, length)
        try:
            texts = captions_in(parse_object(line)) if self._file.suffix == ".jsonl" else [line.decode("utf-8")]
        except ValueError as error:
            raise BrokenSample(self.key(index), str(error)) from None
        return Record(self.key(index), [], texts)


class MadeDocuments:
    """Documents that `make(seed, index)` writes on demand, the same ones each time."""

    def __init__(self, make: Callable[[int, int], str], seed: int, num_documents: int, first: int = 0) -> None:
        if num_documents < 1:
            raise ValueError(f"num_documents={num_documents}: at least one is needed")
        self.name = f"{make.__module__}.{make.__qualname__}, seed {seed}"
        self.seed, self.first = seed, first
        self._make, self._num_documents = make, num_documents
        samples = "\x1f".join(make(seed, first + index) for index in range(min(num_documents, 16)))
        self.fingerprint = hashlib.sha256(
            f"{self.name}\x1f{first}\x1f{num_documents}\x1f{samples}".encode()
        ).hexdigest()

    def __len__(self) -> int:
        return self._num_documents

    def key(self, index: int) -> str:
        return f"document-{self.first + index:08d}"

    def read(self, index: int) -> Record:
        if not 0 <= index < self._num_documents:
            raise IndexError(f"{self.name} has {self._num_documents} documents, there is no document {index}")
        return Record(self.key(index), [], [self._make(self.seed, self.first + index)])
