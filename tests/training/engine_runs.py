"""Stages of real experiments on few samples, trained by one engine after the other in the same processes.

The file is its own child process: `python engine_runs.py FOLDER RANK WORLD PORT JOBS`, jobs in JSON.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import traceback
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

HERE = Path(__file__)
FEW = {"num_train": 64, "num_test": 4, "num_compositional": 4, "num_held_out": 4, "num_processes": 1}
SHORT = ["trainer.batch_size=8", "trainer.threads=1", "optimizer.warmup=0", "optimizer.schedule=constant"]


def start(folder: Path, world: int, jobs: list[dict[str, Any]]) -> list[subprocess.Popen[bytes]]:
    """Each job: {experiment, engine, name, overrides, stage, steps, drops_images, routes}; it gives FOLDER/NAME.json.

    With {tells_weights}, without training: FOLDER/NAME.RANK.json, see `tell_weights`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[2])}
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(world)} if world > 1 else {}
    arguments = [sys.executable, str(HERE), str(folder), json.dumps(jobs)]
    ranks = []
    for rank in range(world):
        ranked = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world > 1 else {}
        with (folder / f"log.{world}.{rank}.txt").open("ab") as log:
            ranks.append(subprocess.Popen(arguments, env={**variables, **where, **ranked}, stdout=log, stderr=log))
    return ranks


def finish(folder: Path, ranks: list[subprocess.Popen[bytes]], timeout: float = 600.0) -> None:
    """AssertionError with what was said where a rank failed or hangs."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and None in (codes := [rank.poll() for rank in ranks]) and not any(codes):
        time.sleep(0.1)
    for rank in ranks:
        rank.kill()
    said = "".join(log.read_text(errors="replace")[-3000:] for log in sorted(folder.glob("log.*.txt")))
    assert codes == [0] * len(ranks), said


class WithoutImages:
    """A collator that takes all images out of half of the micro-batches, the same ones however they are spread."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, samples: Any) -> Any:
        batch = self.collator(samples)
        if crc32(batch.sample_ids[0].encode()) % 2:
            return batch
        nothing = replace(batch.visual, pixels=batch.visual.pixels[:0], tiles_per_item=[], sizes=[])
        text = replace(batch.text, visual_mask=batch.text.visual_mask & False, placeholders=0)
        return replace(batch, visual=replace(nothing, items_per_sample=[0] * len(batch)), text=text)


class FromTwoSources:
    """A collator that says of some samples that they are from the web and of others that they are from books, so that
    many a micro-batch has none of one kind."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, samples: Any) -> Any:
        batch = self.collator(samples)
        return replace(batch, origins=["books" if crc32(name.encode()) % 3 else "web" for name in batch.sample_ids])


def train(folder: Path, job: dict[str, Any]) -> None:
    """A stage, trained to job["steps"], from its newest checkpoint if there is one."""
    import torch

    import vlmtrain.stage
    from vlmtrain.config.check import check
    from vlmtrain.config.compose import compose
    from vlmtrain.config.overrides import read_arguments
    from vlmtrain.objectives.from_origins import FromOrigins
    from vlmtrain.objectives.mixture import Mixture
    from vlmtrain.run import open_run
    from vlmtrain.stage import Stage
    from vlmtrain.training.signals import Signals

    world = int(os.environ.get("WORLD_SIZE", "1"))
    data = [f"data.{key}={value}" for key, value in FEW.items() if key != "num_held_out"]
    overrides = [
        f"experiment={job['experiment']}",
        f"distributed={job['engine']}",
        f"distributed.num_processes={world}",
    ]
    overrides += [*SHORT, f"data.folder={folder / 'scenes'}", *data, *job.get("overrides", [])]
    composed = compose(read_arguments(overrides, []).overrides)
    check(composed)
    if job.get("loads_whole"):  # as if there were no files to leave weights in
        vlmtrain.stage.weights_left_in_files = nullcontext  # type: ignore[assignment]
    run = open_run(composed.config, folder / job.get("run", job["name"]))
    run.folder.mkdir(exist_ok=True)
    section = composed.config["stages"][job["stage"]]
    stage = Stage(job["stage"], {**section, "start_from": {}, "evaluation": {}}, run)
    if job.get("tells_weights"):
        tell_weights(folder / f"{job['name']}.{os.environ.get('RANK', '0')}.json", stage)
        return
    rows: list[dict[str, float]] = []

    class Told:
        def start_stage(self, *_: object) -> None: ...

        def training(self, name: str, step: int, averages: dict[str, float]) -> None:
            rows.append({"step": step, "loss": averages["loss"], "norm": averages["gradient_norm"]})

    stage.max_steps = job["steps"]
    if job.get("drops_images"):
        stage.collator = WithoutImages(stage.collator)  # type: ignore[assignment]
    if job.get("routes"):
        stage.collator = FromTwoSources(stage.collator)  # type: ignore[assignment]
        each = {name: FromOrigins(deepcopy(stage.objective), [name]) for name in ("web", "books")}
        stage.objective = Mixture(each)  # type: ignore[arg-type]
    with Signals() as signals:
        trainer = stage.train(Told(), signals)  # type: ignore[arg-type]
    if stage.accelerator.is_main_process:
        (folder / f"{job['name']}.json").write_text(json.dumps(rows))
    del trainer, stage
    torch.set_num_threads(1)


def tell_weights(file: Path, stage: Any) -> None:
    """Format, shape and hash of every parameter and buffer as the first step would find it, put together again."""
    import torch

    update = stage._update()
    model, told = update.training_step.model, {}
    for name, value in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
        whole = update.engine.whole(value).cpu().contiguous()
        bits = whole.reshape(-1).view(torch.uint8).numpy().tobytes()
        told[name] = f"{whole.dtype} {list(whole.shape)} {sha256(bits).hexdigest()}"
    file.write_text(json.dumps(told))


def main(folder: Path, jobs: list[dict[str, Any]]) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        for job in jobs:
            train(folder, job)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # the others may be waiting, and would hold us up
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
