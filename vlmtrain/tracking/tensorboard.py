"""TensorBoard event files."""

from pathlib import Path
from typing import TYPE_CHECKING

from vlmtrain.tracking.base import Row, RunInfo

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes event files to `logs/tensorboard/<stage>` of the run folder; run it through Background.

    The first training row of a stage purges the steps from there on: a resumed run writes them again.
    """

    def __init__(self, flush_seconds: int = 30) -> None:
        self.flush_seconds = flush_seconds
        self._run: RunInfo | None = None
        self._writers: dict[str, SummaryWriter] = {}

    def start(self, run: RunInfo) -> None:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ValueError(
                'tracker tensorboard needs the package tensorboard: pip install "vlmtrain[tensorboard]"'
            ) from error
        self._run = run

    def log(self, row: Row) -> None:
        writer = self._writer(row.stage, row.step if row.kind == "train" else None)
        for name, value in row.metrics.items():
            writer.add_scalar(name, value, row.step)
        for name, value in row.timing.items():
            writer.add_scalar(f"timing/{name}", value, row.step)

    def image(self, stage: str, step: int, path: Path) -> None:
        import numpy
        from PIL import Image

        with Image.open(path) as picture:
            pixels = numpy.asarray(picture.convert("RGB"))
        self._writer(stage).add_image(path.stem, pixels, step, dataformats="HWC")

    def finish(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _writer(self, stage: str, first_step: int | None = None) -> "SummaryWriter":
        from torch.utils.tensorboard import SummaryWriter

        if self._run is None:
            raise ValueError("TensorBoard.log was called before TensorBoard.start.")
        if stage not in self._writers:
            folder = self._run.folder / "logs" / "tensorboard" / stage
            self._writers[stage] = SummaryWriter(str(folder), purge_step=first_step, flush_secs=self.flush_seconds)
        return self._writers[stage]
