"""However weights come to the ranks, they are those that one process reads whole: to the bit, buffers included."""

import json
from pathlib import Path

import pytest
import torch
from engine_runs import finish, start

import vlmtrain  # noqa: F401 - before transformers

JOB = {"experiment": "blip2_opt", "stage": "language", "tells_weights": True}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tied, bf16, in several files, of odd sizes, which two ranks cannot share equally."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        **{"vocab_size": 1031, "hidden_size": 36, "intermediate_size": 51, "num_hidden_layers": 11},
        **{"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 12, "tie_word_embeddings": True},
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def jobs(llama: Path) -> list[tuple[str, list[str], list[str], list[str]]]:
    """Name, what is added or trains, engines and their options; formats get wider, narrower, or stay."""
    model = [f"model.language_model.source={llama}", "model.language_model.tokenizer=embedded:opt_scenes"]
    low = "trainer.precision=bf16"
    return [
        ("lora", [*model, "model/adaptation=lora_and_new_tokens"], ["fsdp2", "deepspeed_zero3"], []),
        ("dora", [*model, "model/adaptation=dora", low], ["ddp", "fsdp2"], []),
        ("trained", [*model, "stages.language.trainable.language_model=1.0"], ["fsdp2"], []),
        ("copied", ["model/adaptation=soft_prompt", low], ["fsdp2"], ["distributed.engine.shard_frozen=false"]),
    ]


@pytest.mark.slow
def test_every_rank_gets_what_one_process_reads_whole(llama: Path, tmp_path: Path) -> None:
    whole, spread = [], []
    for name, overrides, engines, options in jobs(llama):
        single = {**JOB, "engine": "single", "name": f"{name}-single"}
        whole.append({**single, "overrides": overrides, "loads_whole": True})
        for engine in engines:
            spread.append({**JOB, "engine": engine, "name": f"{name}-{engine}", "overrides": [*overrides, *options]})
    finish(tmp_path, start(tmp_path, 1, whole))
    finish(tmp_path, start(tmp_path, 2, spread))
    for job in spread:
        wanted = json.loads((tmp_path / f"{str(job['name']).split('-')[0]}-single.0.json").read_text())
        for rank in range(2):
            assert json.loads((tmp_path / f"{job['name']}.{rank}.json").read_text()) == wanted, (job["name"], rank)
