"""Few-shot tasks of the embedded world, asked with and without the examples."""

from collections.abc import Sequence
from pathlib import Path

from vlmtrain.data.scenes.formats import LinesFormat
from vlmtrain.data.scenes.shots import TASKS, VERSION, MakeShots, Task
from vlmtrain.data.scenes.write import Layout, prepare
from vlmtrain.data.shots import LastShots
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.interleaved import DOCUMENTS_FILE, InterleavedDocuments


class SceneShots:
    """Documents whose rule only their examples tell; evaluated as `<n>_shots` for every n of `shots`.

    Training reads documents of the most shots, each text of them learned.
    """

    together = 1

    def __init__(
        self,
        folder: str,
        seed: int = 0,
        num_train: int = 4000,
        num_test: int = 400,
        num_processes: int = 2,
        task: Task = "attributes",
        shots: Sequence[int] = (0, 4),
    ) -> None:
        if task not in TASKS or not shots or min(shots) < 0:
            raise ValueError(f"task={task!r} must be one of {', '.join(TASKS)}, shots={list(shots)} numbers from 0 on")
        most = max(shots)
        format = LinesFormat(f"{most} shots of {task}", DOCUMENTS_FILE, MakeShots(most, task))
        counts = {split: count for split, count in {"train": num_train, "test": num_test}.items() if count > 0}
        place = Path(folder).expanduser() / f"version-{VERSION}-{task}-{most}"
        prepare(place, format, seed, counts, num_processes, Layout())
        self.train: Source = InterleavedDocuments(str(place / "train"))
        test = InterleavedDocuments(str(place / "test")) if "test" in counts else None
        self.evaluation: dict[str, Source] = {
            f"{number}_shots": LastShots(test, number) for number in shots if test is not None
        }
