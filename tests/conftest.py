"""What every test may count on: one thread, no network, no tracker that phones home; a way to train for a moment."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")

ROOT = Path(__file__).resolve().parents[1]
FEW_SAMPLES = {"num_train": 16, "num_test": 8, "num_compositional": 8, "num_held_out": 8, "num_processes": 1}


@pytest.fixture
def started_by_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, and not as a rank."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


class WarmTrainings:
    """Runs `vlmtrain ...` in processes forked from one that has imported everything (warm_trainings.py)."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        command = [sys.executable, str(ROOT / "tests" / "warm_trainings.py")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def train(self, arguments: list[str], folder: Path, seconds: float = 300.0) -> None:
        """In `folder`.  AssertionError with what it said where it fails or takes longer."""
        log = folder / "said.log"
        request = {"arguments": arguments, "folder": str(folder), "environment": dict(os.environ), "log": str(log)}
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        has_ended, _, _ = select.select([self._server.stdout], [], [], seconds)
        code = self._server.stdout.readline().decode().strip() if has_ended else "none in time"
        if not has_ended:
            self.end()
            self._start()
        assert code == "0", f"exit code {code or 'never came'}: {log.read_text()[-6000:] if log.exists() else ''}"

    def end(self) -> None:
        self._server.kill()
        self._server.communicate()


@pytest.fixture(scope="session")
def warm_trainings() -> Iterator[WarmTrainings]:
    server = WarmTrainings()
    yield server
    server.end()


@pytest.fixture
def train_experiment(tmp_path: Path, warm_trainings: WarmTrainings) -> Callable[..., Path]:
    """Trains an experiment of conf/ on few samples, as a user starts it, and gives its run folder."""

    def train(experiment: str, max_steps: int, *overrides: str) -> Path:
        run_folder = tmp_path / "run"
        short = [
            f"trainer.max_steps={max_steps}",
            "trainer.batch_size=4",
            "trainer.log_every=1",
            "trainer.num_workers=0",
            "optimizer.warmup=0",
        ]
        chosen = [*short, *few_samples(experiment, tmp_path), *overrides]
        warm_trainings.train([f"+experiment={experiment}", f"run_dir={run_folder}", *chosen], tmp_path)
        return run_folder

    return train


def few_samples(experiment: str, folder: Path) -> list[str]:
    """Overrides that keep the embedded data small and out of the user's cache, as far as its classes take them."""
    from vlmtrain.config.compose import compose

    config = compose([f"experiment={experiment}"]).config
    nodes = {"data": config["data"]} | {
        f"stages.{name}.{place}": stage[place]
        for name, stage in config["stages"].items()
        for place in ("data", "evaluation")
        if stage[place]
    }
    chosen = {**FEW_SAMPLES, "folder": folder / "scenes"}
    return [
        f"{path}.{name}={value}"
        for path, known in (each for node in nodes.items() for each in _parameters(*node))
        for name, value in chosen.items()
        if name in known
    ]


def _parameters(path: str, node: dict[str, Any]) -> Iterator[tuple[str, Container[str]]]:
    """(place, names of the arguments) of a part, and of the parts that are its arguments."""
    from vlmtrain.config.signatures import read_signature

    if "_target_" in node:
        yield path, read_signature(node["_target_"]).parameters
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _parameters(f"{path}.{name}", value)


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a byte-level BPE tokenizer that can spell any text; special tokens of OPT and of BERT both."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        ["a small red circle left of a big blue square", "what colour is the circle? it is red."],
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<s>", "<pad>", "</s>", "[CLS]", "[SEP]"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    special |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **special).save_pretrained(folder)
    return str(folder)
