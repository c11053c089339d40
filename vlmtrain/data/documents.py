"""The user's own documents of images and texts."""

from vlmtrain.data.held_out import check_share, hold_out
from vlmtrain.data.sources.interleaved import DOCUMENTS_TO_WRITE, InterleavedDocuments


class Documents:
    """Documents at `path`, a folder with documents.jsonl; a share of them, by a hash of their keys, is held out."""

    together = 1

    def __init__(self, path: str, held_out: float = 0.05) -> None:
        check_share(held_out)
        if not path:
            raise ValueError(f"data.path names no folder. Give data.path=FOLDER: {DOCUMENTS_TO_WRITE}")
        self.train, self.evaluation = hold_out(InterleavedDocuments(path), held_out)
