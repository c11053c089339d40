"""Shipped sweeps compare what they say they compare, and the script makes a table of them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from vlmtrain.config.compose import compose
from vlmtrain.config.sweep import read_sweep
from vlmtrain.shapes import build_on_meta

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "results.py"


@pytest.fixture
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("results_script", SCRIPT)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def parameters(overrides: list[str]) -> tuple[int, int]:
    """Of the last stage's model: all, and those that train."""
    model = build_on_meta(list(compose(overrides).config["stages"].values())[-1])
    counts = [(each.numel(), each.requires_grad) for each in model.parameters()]
    return sum(count for count, _ in counts), sum(count for count, trains in counts if trains)


def test_mamba_and_its_twin_have_equally_many_parameters() -> None:
    settings = read_sweep("mamba_vs_transformer").settings
    mamba, transformer = (parameters(settings[name]) for name in ("mamba2_scratch", "llama_scratch"))
    assert mamba == pytest.approx(transformer, rel=0.02)
    assert all(trained > 400_000 for _, trained in (mamba, transformer)), "the language models train"


def test_twins_differ_in_the_language_model_alone() -> None:
    configs = [compose(overrides).config for overrides in read_sweep("mamba_vs_transformer").settings.values()]
    for config in configs:
        for model in (config["model"], *(stage["model"] for stage in config["stages"].values())):
            assert model["language_model"]["tokenizer"] == "embedded:opt_scenes"
            assert model.pop("language_model")["max_tokens"] == 96
    assert configs[0] == configs[1]


@pytest.mark.parametrize("connector", read_sweep("connectors").settings)
def test_every_connector_of_the_sweep_is_built(connector: str) -> None:
    assert parameters(read_sweep("connectors").settings[connector])[1] > 0


def test_a_table_has_a_row_for_every_setting_and_a_column_for_every_figure(script: ModuleType) -> None:
    entry = {
        "parameters": 2_000_000,
        "trainable_parameters": 500_000,
        "steps": 60,
        "arithmetic": 18_000,
        "seconds": 9.6,
    }
    entries = {"mlp": {**entry, "figures": {"right": "51.0 %"}}, "linear": {**entry, "figures": {"loss": "0.4"}}}
    page = script.render_sweep("connectors", entries)
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert rows[0] == "| setting | parameters | trained | steps | arithmetic | seconds | loss | right |"
    assert rows[2].startswith("| linear | ") and rows[2].endswith(" | 60 | 1.80e+04 | 10 | 0.4 |  |")
    assert rows[3].startswith("| mlp | ") and rows[3].endswith(" |  | 51.0 % |") and len(rows) == 4
