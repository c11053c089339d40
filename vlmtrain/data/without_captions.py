"""Images only: what the data says of them is left out."""

import hashlib
from dataclasses import replace

from vlmtrain.data.record import Record
from vlmtrain.data.sources.view import View


class WithoutCaptions(View):
    """The images of `source` under their keys, and nothing of what is written about them."""

    @property
    def name(self) -> str:
        return f"{self.source.name} without captions"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"images of {self.source.fingerprint}".encode()).hexdigest()

    def change(self, index: int, record: Record) -> Record:
        return replace(record, captions=[], extra={})
