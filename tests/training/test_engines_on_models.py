"""Stages of shipped experiments under every engine: the losses and norms of one process."""

import json
from pathlib import Path

import pytest
from engine_runs import finish, start

ENGINES = ["ddp", "fsdp2", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3"]
STAGES = {
    "blip2_opt": "language",
    "blip2_stage1": "representation",
    "clip": "contrastive",
    "flamingo": "documents",
    "siglip": "sigmoid",
    "visualbert": "pretrain",
}
DUAL_ENCODER = ("encoder", "pooling", "text_encoder", "visual_projection", "text_projection", "log_scale")
OF_A_TEACHER = [
    "stages.contrastive.model={_target_: vlmtrain.models.taught.Taught, student: ${model}, teacher: ${model}}",
    *(f"~stages.contrastive.trainable.{part}" for part in DUAL_ENCODER),
    "+stages.contrastive.trainable.student=1.0",
    "+stages.contrastive.trainable.teacher=null",
    "stages.contrastive.objective._target_=vlmtrain.objectives.image_text_distillation.ImageTextDistillation",
]


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(
    ("experiment", "trap"),
    [
        *((experiment, "") for experiment in STAGES),
        ("blip2_opt", "drops_images"),
        ("flamingo", "drops_images"),
        ("blip2_opt", "routes"),
        ("blip2_stage1", "routes"),
        ("clip", "teaches"),
    ],
)
def test_losses_are_those_of_one_process(experiment: str, trap: str, world: int, tmp_path: Path) -> None:
    """With `drops_images` some ranks, all or none have a micro-batch of text only, with `routes` one without samples
    that an objective is for: nobody waits for anybody."""
    job = {"experiment": experiment, "stage": STAGES[experiment], "steps": 3, trap: True}
    overrides = ["trainer.log_every=1", "optimizer.lr=1e-4", *(OF_A_TEACHER if trap == "teaches" else [])]
    alone = {**job, "engine": "single", "name": "single", "overrides": [*overrides, f"trainer.accumulate={world}"]}
    spread = [{**job, "engine": each, "name": each, "overrides": overrides} for each in ENGINES]
    finish(tmp_path, start(tmp_path, 1, [alone]))
    finish(tmp_path, start(tmp_path, world, spread))
    wanted = json.loads((tmp_path / "single.json").read_text())
    assert len(wanted) == 3
    for engine in ENGINES:
        for row, other in zip(json.loads((tmp_path / f"{engine}.json").read_text()), wanted, strict=True):
            assert row["loss"] == pytest.approx(other["loss"], abs=1e-5), (engine, row, other)
            assert row["norm"] == pytest.approx(other["norm"], rel=1e-5, abs=1e-5), (engine, row, other)
