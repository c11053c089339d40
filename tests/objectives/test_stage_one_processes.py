"""BLIP-2's stage 1 through the real trainer: processes and accumulation against one batch.

The file is its own child process: `python test_stage_one_processes.py FOLDER TOKENIZER WORLD ACCUMULATE`.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

SAMPLES = 8


def run_step(folder: Path, tokenizer: str, world: int, accumulate: int) -> None:
    from conftest import build_model, cut, make_batch

    from vlmtrain.objectives.contrastive import Contrastive
    from vlmtrain.objectives.language_modeling import LanguageModeling
    from vlmtrain.objectives.matching import ImageTextMatching
    from vlmtrain.objectives.mixture import Mixture
    from vlmtrain.training.accelerator import build_accelerator
    from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
    from vlmtrain.training.schedule import Schedule
    from vlmtrain.training.step import TrainingStep
    from vlmtrain.training.trainability import component_names, set_trainability
    from vlmtrain.training.update import Update

    accelerator = build_accelerator("fp32", world)
    model = build_model(tokenizer)
    rates = dict.fromkeys(component_names(model), 1.0) | {"encoder": None}
    optimizer = build_optimizer(model, set_trainability(model, rates), AdamWChoices())
    gradients: dict[str, torch.Tensor] = {}
    optimizer.register_step_pre_hook(
        lambda *_: gradients.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    )
    objective = Mixture(
        {
            "contrastive": Contrastive(0.7, label_smoothing=0.1),
            "matching": ImageTextMatching(),
            "captioning": LanguageModeling(1.5, label_smoothing=0.1),
        }
    )
    step = TrainingStep(model, objective)
    update = Update(accelerator, step, optimizer, Schedule(lr=1e-3, max_steps=2), gradient_clip_norm=None)
    pieces = cut(make_batch(SAMPLES), SAMPLES // (world * accumulate))
    mine = [pieces[index * world + accelerator.process_index] for index in range(accumulate)]
    result = update(mine, step=0)
    shares = {f"loss/{term}": accelerator.reduce(share, "sum").detach() for term, share in result.shares.items()}
    if accelerator.process_index == 0:
        save_file(gradients | shares, folder / "step.safetensors")


def start(folder: Path, tokenizer: str, world: int, accumulate: int) -> list[subprocess.Popen]:
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    base = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, __file__, str(folder), tokenizer, str(world), str(accumulate)]
    return [
        subprocess.Popen(command, env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)})
        for rank in range(world)
    ]


@pytest.mark.slow
def test_t14_stage_one_on_two_processes_and_accumulated_equals_one_batch(tmp_path: Path, tokenizer_folder: str) -> None:
    cuts = {"one": (1, 1), "two processes": (2, 1), "two by two": (2, 2)}
    children = [child for name, sizes in cuts.items() for child in start(tmp_path / name, tokenizer_folder, *sizes)]
    assert [child.wait(timeout=600) for child in children] == [0] * len(children)
    steps = {name: load_file(tmp_path / name / "step.safetensors") for name in cuts}
    wanted = steps.pop("one")
    assert len(wanted) > 50 and {"loss/contrastive", "loss/matching", "loss/captioning"} <= wanted.keys()
    for name, step in steps.items():
        assert step.keys() == wanted.keys()
        worst = {key: float((step[key] - value).abs().max()) for key, value in wanted.items()}
        assert max(worst.values()) < 1e-5, (name, {key: error for key, error in worst.items() if error >= 1e-5})


if __name__ == "__main__":
    run_step(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
