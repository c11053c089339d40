"""Videos of the embedded world: written once, read back through the source that reads the user's own."""

from collections.abc import Sequence
from pathlib import Path

from vlmtrain.data.scenes.formats import LinesFormat
from vlmtrain.data.scenes.videos import DIRECTIONS, MOTIONS, VERSION, MakeVideo
from vlmtrain.data.scenes.write import Layout, prepare
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.videos import VIDEOS_FILE, Videos


class SceneVideos:
    """Videos of `num_frames` frames of one or two things that move in one of `motions`, with captions and questions.

    The first question of a record asks for the motion.
    """

    together = 1

    def __init__(
        self,
        folder: str,
        seed: int = 0,
        num_train: int = 4000,
        num_test: int = 400,
        num_processes: int = 2,
        num_frames: int = 6,
        num_things: int = 1,
        motions: Sequence[str] = tuple(DIRECTIONS),
    ) -> None:
        unknown = [motion for motion in motions if motion not in MOTIONS]
        if unknown or not motions or num_frames < 2 or num_things not in (1, 2):
            raise ValueError(
                f"motions={list(motions)} must be some of {', '.join(MOTIONS)}, num_frames={num_frames} 2 or more and "
                f"num_things={num_things} 1 or 2"
            )
        name = f"videos of {num_frames} frames and {num_things} things, {' '.join(motions)}"
        format = LinesFormat(name, VIDEOS_FILE, MakeVideo(num_frames, num_things, tuple(motions)))
        counts = {split: count for split, count in {"train": num_train, "test": num_test}.items() if count > 0}
        place = Path(folder).expanduser() / f"version-{VERSION}-{'-'.join(motions)}"
        prepare(place, format, seed, counts, num_processes, Layout())
        self.train: Source = Videos(str(place / "train"))
        self.evaluation: dict[str, Source] = {split: Videos(str(place / split)) for split in counts if split != "train"}
