import pytest
from PIL import Image

from vlmtrain.tracking.base import Row, RunInfo
from vlmtrain.tracking.tensorboard import TensorBoard

events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read_steps(folder, name):
    accumulator = events.EventAccumulator(str(folder / "logs" / "tensorboard" / "a"))
    accumulator.Reload()
    return [event.step for event in accumulator.Scalars(name)]


def write_run(folder, steps):
    tracker = TensorBoard()
    tracker.start(RunInfo("toy/1", folder, {}))
    for step in steps:
        tracker.log(Row("a", step, {"loss": 1 / step}, {"seconds": 1.0}))
    tracker.finish()


def test_a_resumed_run_shows_every_step_once(tmp_path):
    write_run(tmp_path, range(1, 6))
    write_run(tmp_path, range(4, 8))
    assert read_steps(tmp_path, "loss") == [1, 2, 3, 4, 5, 6, 7]


def test_images_are_shown(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "samples.png")
    tracker = TensorBoard()
    tracker.start(RunInfo("toy/1", tmp_path, {}))
    tracker.image("a", 1, tmp_path / "samples.png")
    tracker.finish()
    accumulator = events.EventAccumulator(str(tmp_path / "logs" / "tensorboard" / "a"))
    accumulator.Reload()
    assert accumulator.Tags()["images"] == ["samples"]
