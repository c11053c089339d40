"""Configurations as a user types them, without the embedded weights having to be there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlmtrain.config import embedded
from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.config.faults import ConfigError
from vlmtrain.config.overrides import read_arguments

VERBS = ["train", "plan", "config", "help"]
COMPLETE = ["experiment=blip2_opt", "scale=small", "data=pairs", "data.path=photos"]


@pytest.fixture(autouse=True)
def embedded_weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("embedded")
    for part in embedded.embedded_folder().glob("*_scenes"):
        (folder / part.name).mkdir()
        for file in part.glob("config.*"):
            (folder / part.name / file.name).write_text("{}")
    monkeypatch.setattr(embedded, "embedded_folder", lambda: folder)
    return folder


def resolve(*typed: str) -> dict[str, Any]:
    read = read_arguments(list(typed), VERBS)
    if read.faults:
        raise ConfigError(read.faults)
    composed = compose(read.overrides, read.config_dirs)
    check(composed)
    return composed.config


def find_faults(*typed: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(*typed)
    return str(caught.value)


@pytest.fixture
def resolved() -> Callable[..., dict[str, Any]]:
    """Typed words -> the configuration they mean."""
    return resolve


@pytest.fixture
def faults_of() -> Callable[..., str]:
    """Typed words -> what is said against them."""
    return find_faults


@pytest.fixture
def complete() -> list[str]:
    """A command line with nothing wrong that needs no embedded data."""
    return list(COMPLETE)
