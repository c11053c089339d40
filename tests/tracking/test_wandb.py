import pytest

from vlmtrain.tracking.background import Background
from vlmtrain.tracking.base import Row, RunInfo
from vlmtrain.tracking.wandb import Wandb


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="online or offline, not 'on'"):
        Wandb(mode="on")


@pytest.mark.slow
def test_an_offline_run_lies_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    background = Background(Wandb(), finish_seconds=60)
    background.start(RunInfo("toy/1", tmp_path, {"seed": 0}))
    background.log(Row("a", 1, {"loss": float("nan")}, {"seconds": 1.0}))
    background.finish()
    assert background.num_dropped == 0
    assert list((tmp_path / "logs" / "wandb").glob("offline-run-*/*.wandb"))
