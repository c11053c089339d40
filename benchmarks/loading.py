"""What a rank takes while a frozen language model comes to it from its files; see README.md beside it."""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from ranks import hear_ranks, start_ranks, tell
from torch import nn

from vlmtrain.config.embedded import resolve_source
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.nn.file_weights import weights_left_in_files
from vlmtrain.training.accelerator import build_accelerator
from vlmtrain.training.engines.base import Engine
from vlmtrain.training.engines.fsdp2 import FSDP2
from vlmtrain.training.engines.replicated import Replicated
from vlmtrain.training.engines.zero3 import Zero3
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
from vlmtrain.training.precision import set_weight_precision
from vlmtrain.training.step import TrainingStep
from vlmtrain.training.trainability import set_trainability

logger = logging.getLogger("benchmarks.loading")

ENGINES: dict[str, type[Engine]] = {"ddp": Replicated, "fsdp2": FSDP2, "zero3": Zero3}
WIDTH = 1536


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = read_arguments()
    if arguments.engine:
        measure(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.where) as where:
        source = Path(where) / "llama"
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--engine", "none", "--source", source], check=True)
        size = sum(file.stat().st_size for file in source.glob("*.safetensors"))
        logger.info("files: %.0f MB in bf16; frozen, and kept in bf16", size / 1e6)
        logger.info(
            "%-6s %6s %-14s %18s %18s %9s", "engine", "ranks", "loading", "private peak, MB", "holds, MB", "seconds"
        )
        for engine in arguments.engines:
            for world in arguments.processes:
                for loading in ("whole", "left in files"):
                    peak, told = spread(engine, world, loading, source)
                    holds, seconds = max(each["holds"] for each in told), max(each["seconds"] for each in told)
                    row = (engine, world, loading, peak / 1e6, holds / 1e6, seconds)
                    logger.info("%-6s %6d %-14s %18.0f %18.0f %9.1f", *row)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=16, help="of the random Llama; 28 M parameters each")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--where", help="folder for its files")
    for told_to_children in ("--engine", "--source", "--loading"):
        parser.add_argument(told_to_children, help=argparse.SUPPRESS)
    return parser.parse_args()


def spread(engine: str, world: int, loading: str, source: Path) -> tuple[int, list[dict[str, Any]]]:
    """The most private memory that a rank took beyond what it had before, and what each has to tell."""
    command = [sys.executable, __file__, "--engine", engine, "--loading", loading, "--source", str(source)]
    ranks = start_ranks(command, world, source.parent, {})
    peaks = [0] * world
    while any(process.poll() is None for process in ranks):
        for rank, process in enumerate(ranks):
            peaks[rank] = max(peaks[rank], private_bytes(process.pid))
        time.sleep(0.005)
    told = hear_ranks(ranks, source.parent)
    return max(peak - each["before"] for peak, each in zip(peaks, told, strict=True)), told


def measure(arguments: argparse.Namespace) -> None:
    """In a rank: everything that stands between the files and the first step."""
    torch.set_num_threads(1)
    if arguments.engine == "none":
        make_files(Path(arguments.source), arguments.layers)
        return
    accelerator = build_accelerator("fp32", int(os.environ.get("WORLD_SIZE", "1")))
    engine = ENGINES[arguments.engine]()
    before, since = private_bytes(os.getpid()), time.perf_counter()
    with weights_left_in_files() if arguments.loading == "left in files" else nullcontext():
        model = Model(arguments.source)
    rates = set_trainability(model, {"connector": 1.0, "language_model": None})
    set_weight_precision(model, "bf16")
    engine.receive(accelerator, model)
    step = TrainingStep(model, NoObjective())  # type: ignore[arg-type]
    engine.lay_out(accelerator, step)
    engine.start(accelerator, step, build_optimizer(model, rates, AdamWChoices()))
    told = {"before": before, "holds": private_bytes(os.getpid()) - before, "seconds": time.perf_counter() - since}
    tell(Path(arguments.source).parent, told)
    accelerator.wait_for_everyone()
    os._exit(0)


class Model(nn.Module):
    """The largest part of a vision-language model, and something that trains."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.connector = nn.Linear(8, WIDTH)
        self.language_model = CausalLanguageModel(source, tokenizer=resolve_source("embedded:opt_scenes"))


class NoObjective(nn.Module):
    def require(self, model: nn.Module) -> None:
        return


def make_files(folder: Path, layers: int) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=4096,
        num_hidden_layers=layers,
        num_attention_heads=12,
        vocab_size=16_000,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.02, 0.02)
    model.save_pretrained(folder, max_shard_size="200MB")


def private_bytes(process: int) -> int:
    """Memory that no other process shares; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    main()
