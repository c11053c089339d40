"""Objectives by source from the command line: data of several parts, each learned in a way of its own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vlmtrain.tracking.jsonl import read_rows

LEARNING = "{_target_: vlmtrain.objectives.language_modeling.LanguageModeling}"


def routed(questions: str) -> str:
    each = {"captions": "[captions, continued]", "questions": questions}
    objectives = ", ".join(
        f"{name}: {{_target_: vlmtrain.objectives.from_origins.FromOrigins, objective: {LEARNING}, origins: {origins}}}"
        for name, origins in each.items()
    )
    mixture = f"{{_target_: vlmtrain.objectives.mixture.Mixture, objectives: {{{objectives}}}}}"
    return f"stages.mixture.objective={mixture}"


def test_each_source_has_its_own_term(train_experiment: Callable[..., Path]) -> None:
    folder = train_experiment("pali", 3, routed("[questions]"), "trainer.batch_size=8")
    rows = read_rows(folder / "metrics.jsonl")
    told = [row.metrics for row in rows if row.kind == "train"]
    assert len(told) == 3
    for each in told:
        assert each["loss/captions"] > 0 and each["loss/questions"] > 0
        assert each["loss"] == pytest.approx(each["loss/captions"] + each["loss/questions"])


def test_a_source_that_is_not_there_is_told(train_experiment: Callable[..., Path]) -> None:
    with pytest.raises(AssertionError, match="for samples from question, and the data has"):
        train_experiment("pali", 1, routed("[question]"))
