"""A run's configuration on disk."""

from pathlib import Path

import pytest

from vlmtrain.config.stored import find_differences, hash_config, read_config, write_config

CONFIG = {"seed": 0, "run_dir": None, "tracker": {}, "optimizer": {"lr": 1e-05}, "trainer": {"num_workers": 0}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path)
    assert read_config(tmp_path) == CONFIG
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


def test_a_folder_without_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        read_config(tmp_path)


def test_harmless_differences_do_not_count() -> None:
    other = CONFIG | {"run_dir": "x", "tracker": {"wandb": {"mode": "online"}}, "trainer": {"num_workers": 4}}
    assert hash_config(CONFIG) == hash_config(other)
    assert find_differences(CONFIG, other) == []


def test_differences_that_matter_are_listed() -> None:
    other = CONFIG | {"seed": 1, "optimizer": {"lr": 2e-05}, "extra": 3}
    assert hash_config(CONFIG) != hash_config(other)
    assert find_differences(CONFIG, other) == ["seed: 0 -> 1", "optimizer.lr: 1e-05 -> 2e-05", "extra: (absent) -> 3"]
