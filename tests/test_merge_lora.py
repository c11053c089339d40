"""A run with LoRA ends as a folder that transformers loads without peft."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vlmtrain.config.build import build
from vlmtrain.config.stored import read_config
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.training.checkpoint import newest_valid
from vlmtrain.training.hand_over import load_part

SCRIPT = Path(__file__).parents[1] / "scripts" / "merge_lora.py"
CHOICES = ["stages=[language]", "stages.language.start_from=null", "model/connector=linear", "optimizer.lr=3e-3"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_merged_folder_writes_what_the_run_does(
    train_experiment: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    run = train_experiment("blip2_opt", 6, f"model/adaptation={kind}", *CHOICES)
    spec = importlib.util.spec_from_file_location("merge_lora", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.merge(run, "language", tmp_path / "merged")
    adapted = build(read_config(run)["stages"]["language"]["model"]).language_model.eval()
    checkpoint = newest_valid(run / "checkpoints" / "language")
    assert checkpoint is not None
    load_part(checkpoint, "language_model", adapted)
    merged = CausalLanguageModel(str(tmp_path / "merged")).eval()
    base = CausalLanguageModel(adapted.source).eval()
    embeddings, mask, targets = torch.randn(2, 7, adapted.width), torch.ones(2, 7, dtype=torch.bool), torch.ones(2, 7)
    wanted = adapted.logits(embeddings, mask, targets)
    assert (wanted - base.logits(embeddings, mask, targets)).abs().max() > 1e-3, "it has learned something"
    torch.testing.assert_close(merged.logits(embeddings, mask, targets), wanted, atol=1e-5, rtol=0)
