"""The embedded language model can say in other words what it was told, relations and all."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "retelling.py"


@pytest.mark.parametrize("told", ["caption", "notes"])
def test_the_embedded_language_model_retells_things_and_relations(told: str) -> None:
    specification = importlib.util.spec_from_file_location("retelling", SCRIPT)
    assert specification is not None and specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    model = script.load(["model/language_model=opt_scenes"])
    verdicts = [script.retell(model, "compositional", index, script.TELLINGS[told]) for index in range(20)]
    assert sum(verdict.aspects["relations_right"][1] for verdict in verdicts) >= 10
    assert sum(verdict.correct for verdict in verdicts) >= 19
