"""Arithmetic of a step is that of its matrix products, forward and backward."""

from pathlib import Path

from vlmtrain.config.compose import compose
from vlmtrain.launch.arithmetic import count_arithmetic

WIDTH, PATCHES, BATCH = 128, 65, 4  # of the embedded ViT and OPT


def count(folder: Path, connector: str, *overrides: str) -> int:
    typed = [f"data.{name}={number}" for name, number in (("num_train", 8), ("num_test", 2), ("num_compositional", 0))]
    typed += [f"data.folder={folder}", "data.num_processes=1", f"trainer.batch_size={BATCH}", *overrides]
    common = ["experiment=blip2_opt", "run_stages=[language]", "stages.language.start_from=null"]
    counted = count_arithmetic(compose([*common, f"model/connector={connector}", *typed]).config)
    assert list(counted) == ["language"]
    return counted["language"]


def test_another_linear_layer_costs_three_products(tmp_path: Path) -> None:
    """One forward, and two backward: for its weight and for its input."""
    more = count(tmp_path, "mlp") - count(tmp_path, "linear")
    assert more == 3 * 2 * BATCH * PATCHES * WIDTH * WIDTH


def test_what_is_not_trained_costs_less(tmp_path: Path) -> None:
    frozen = count(tmp_path, "linear")
    trained = count(tmp_path, "linear", "stages.language.trainable.language_model=1.0")
    assert frozen < trained < 1.5 * frozen
