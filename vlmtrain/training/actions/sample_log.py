"""Which samples were trained on, and which could not be."""

import json
from dataclasses import dataclass

from vlmtrain.training.trainer import Trainer


@dataclass(frozen=True)
class SampleLog:
    """logs/samples-rank<r>.jsonl: ids of every step.  After a resume a step may stand twice; the later one holds."""

    every: int = 1

    def __call__(self, trainer: Trainer) -> None:
        ids = [batch.sample_ids for batch in trainer.micro_batches]
        line = {"step": trainer.progress.step - 1, "micro_batches": ids}
        _append(trainer, f"samples-rank{trainer.accelerator.process_index}.jsonl", [line])


def _append(trainer: Trainer, name: str, lines: list[dict[str, object]]) -> None:
    trainer.logs.mkdir(parents=True, exist_ok=True)
    with (trainer.logs / name).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
