"""How much a step computes, counted on a real batch: what runs of different parts are given equal amounts of."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vlmtrain.data.loading import LoadingPlan, StepLoader
from vlmtrain.run import open_run
from vlmtrain.stage import RunContext, Stage
from vlmtrain.training.step import TrainingStep


def count_arithmetic(config: dict[str, Any]) -> dict[str, int]:
    """Stage -> floating-point operations of one training step in matrix products and convolutions, both ways.

    What works on single numbers (norms, the scan of a state-space model without kernels) is not in it.  The first
    batch of each stage stands for all.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(config, Path(folder))
        return {name: _count(name, {**section, "start_from": {}}, run) for name, section in config["stages"].items()}


def _count(name: str, section: dict[str, Any], run: RunContext) -> int:
    stage = Stage(name, section, replace(run, distributed={**run.distributed, "engine": None}))  # with whole weights
    plan = LoadingPlan(run.seed, section["trainer"]["batch_size"], max_steps=1, together=stage.data.together)
    loader = StepLoader(stage.data.train, stage.form, stage.transform, stage.collator, plan)
    step = TrainingStep(stage.model, stage.objective)
    (batch,) = next(iter(loader.steps(0)))
    # a fused attention is one operation that the counter does not know on CPUs; taken apart it is two it does know
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        totals = step(batch).totals.values()
        sum(totals).backward()
    return int(counter.get_total_flops())
