"""The user's own videos."""

from vlmtrain.data.held_out import check_share, hold_out
from vlmtrain.data.sources import videos


class Videos:
    """Videos at `path`, a folder with videos.jsonl, sampled at `frames_per_second`; a share of them is held out."""

    together = 1

    def __init__(self, path: str, held_out: float = 0.05, frames_per_second: float = 1.0) -> None:
        check_share(held_out)
        if not path:
            raise ValueError(f"data.path names no folder. Give data.path=FOLDER: {videos.VIDEOS_TO_WRITE}")
        self.train, self.evaluation = hold_out(videos.Videos(path, frames_per_second), held_out)
