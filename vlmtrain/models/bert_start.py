"""Starts a stream of BERT's blocks from the weights of a Hugging Face BERT folder."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)

_BLOCK = {  # ours -> BERT's, within a layer
    "attention.to_query": "attention.self.query",
    "attention.to_out": "attention.output.dense",
    "attention.norm": "attention.output.LayerNorm",
    "feed_forward.expand": "intermediate.dense",
    "feed_forward.contract": "output.dense",
    "feed_forward.norm": "output.LayerNorm",
}


def start_from_bert(stream: nn.Module, folder: str | Path, num_heads: int) -> None:
    """Copies words, positions, the first segment's type, the norm and all blocks into `stream`.

    `stream` has `words`, `positions`, `segment`, `norm` and `blocks` of VisualBertStream; what reads the image stays
    as it is.  Words and positions beyond BERT's stay new.

    Raises:
        ValueError: the folder holds no BERT, or one of another size.
    """
    folder = Path(folder)
    files = [folder / "config.json", folder / "model.safetensors"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{folder} is no BERT folder: {', '.join(missing)} not found; save one there first")
    own: Any = stream
    _check_sizes(json.loads(files[0].read_text()), own, num_heads, folder)
    stored = {_plain_name(name): tensor for name, tensor in load_file(files[1]).items()}
    wanted = _sources(own, stored, folder)
    with torch.no_grad():
        for target, source in wanted:
            shared = min(len(target), len(source))  # a vocabulary may have grown by special tokens
            target[:shared].copy_(source[:shared])
    logger.info("BERT from %s: %d tensors copied", folder, len(wanted))


def _sources(stream: Any, stored: dict[str, Tensor], folder: Path) -> list[tuple[Tensor, Tensor]]:
    """Every tensor of ours with what it becomes."""

    def take(name: str) -> Tensor:
        if name not in stored:
            raise ValueError(f"{folder}/model.safetensors lacks {name}; is it a BERT encoder?")
        return stored[name]

    at = "embeddings"
    pairs = [
        (stream.words.weight, take(f"{at}.word_embeddings.weight")),
        (stream.positions.weight, take(f"{at}.position_embeddings.weight")),
        (stream.segment, take(f"{at}.token_type_embeddings.weight")[0]),
        (stream.norm.weight, take(f"{at}.LayerNorm.weight")),
        (stream.norm.bias, take(f"{at}.LayerNorm.bias")),
    ]
    for index, block in enumerate(stream.blocks):
        for kind in ("weight", "bias"):
            layer = f"encoder.layer.{index}"
            pairs += [
                (block.get_parameter(f"{ours}.{kind}"), take(f"{layer}.{theirs}.{kind}"))
                for ours, theirs in _BLOCK.items()
            ]
            key, value = (take(f"{layer}.attention.self.{role}.{kind}") for role in ("key", "value"))
            pairs.append((block.get_parameter(f"attention.to_key_value.{kind}"), torch.cat([key, value])))
    return pairs


def _check_sizes(config: dict[str, Any], stream: Any, num_heads: int, folder: Path) -> None:
    ours = {
        "hidden_size": stream.width,
        "num_hidden_layers": len(stream.blocks),
        "num_attention_heads": num_heads,
        "intermediate_size": 4 * stream.width,
    }
    wrong = [f"{key} {config.get(key)} against {size}" for key, size in ours.items() if config.get(key) != size]
    if wrong:
        raise ValueError(
            f"BERT in {folder} does not fit: {'; '.join(wrong)}.  Give the stream BERT's sizes, another BERT, or none."
        )


def _plain_name(name: str) -> str:
    """Without the prefix of heads, and with today's names of LayerNorm."""
    plain = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
    return plain.replace("LayerNorm.beta", "LayerNorm.bias")
