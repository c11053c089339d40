"""Writes the language model of a run with its LoRA or DoRA merged in: a folder that transformers loads without peft.

    python scripts/merge_lora.py RUN_FOLDER STAGE OUTPUT_FOLDER

Weights are fp32; adapters that learned beside four-bit weights (precision=nf4) are added to those of the source, which
are not quite the same.  Encoder, connector and fusion stay in the run's checkpoints; of the language model this is all.
"""

import sys
from pathlib import Path

from vlmtrain.config.build import build
from vlmtrain.config.stored import read_config
from vlmtrain.language_models.new_tokens import ExtendedEmbedding, pretrained_model
from vlmtrain.nn.lora import merge_lora
from vlmtrain.training.checkpoint import newest_valid
from vlmtrain.training.hand_over import load_part


def merge(run: Path, stage: str, output: Path) -> None:
    """ValueError where the run, its stage or its adapters are not there, or transformers could not hold the result."""
    chosen = read_config(run)["stages"][stage]["model"]
    if chosen["language_model"].get("precision") == "nf4":
        chosen["language_model"]["precision"] = "fp32"
    model = build(chosen)
    checkpoint = newest_valid(run / "checkpoints" / stage)
    if checkpoint is None:
        raise ValueError(f"{run} has no checkpoint of stage {stage}.")
    load_part(checkpoint, "language_model", model.language_model)
    inner = pretrained_model(merge_lora(model.language_model))
    if isinstance(inner.get_input_embeddings(), ExtendedEmbedding):
        raise ValueError("New tokens and soft prompts have tables of their own, which no file of transformers holds.")
    inner.save_pretrained(output)
    model.language_model.layout().tokenizer.save_pretrained(output)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    merge(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
