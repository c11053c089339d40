"""Start a Q-Former from a pretrained BERT (BLIP-2, Li et al. 2023, section 3.1): only what reads images is new."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vlmtrain.nn.qformer import QFormer
from vlmtrain.nn.qformer_text import QFormerText, TextHead

logger = logging.getLogger(__name__)

Take = Callable[[str], Tensor]  # name of a BERT tensor -> the tensor, marked as used


def initialize_from_bert(qformer: QFormer, text: QFormerText, folder: str | Path, head: TextHead | None = None) -> None:
    """Copy embeddings, self-attention and feed-forwards of a Hugging Face BERT; queries get the feed-forwards too.

    Args:
        qformer: its cross-attention and its learned queries keep their values.
        text: gets the words that both vocabularies have room for; rows beyond BERT's stay new.
        folder: holds config.json and model.safetensors of a BertModel, or of one with the prefix `bert.`.

        head: gets BERT's masked-word head, where the folder has one.

    Raises:
        ValueError: the folder holds no BERT, or one of another size.
    """
    folder = Path(folder)
    missing_files = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing_files:
        raise ValueError(f"{folder} is no BERT folder: {', '.join(missing_files)} not found; save one there first")
    _check_sizes(json.loads((folder / "config.json").read_text()), qformer, folder)
    weights = {_plain_name(name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    used: set[str] = set()

    def take(name: str) -> Tensor:
        if name not in weights:
            raise ValueError(f"{folder}/model.safetensors lacks {name}; is it a BERT encoder?")
        used.add(name)
        return weights[name]

    copied = _copy_embeddings(qformer, text, take)
    for index in range(len(qformer.layers)):
        copied |= _copy_layer(qformer, text, index, take)
    if head is not None and "cls.predictions.bias" in weights:
        copied |= _copy_head(head, take)
    new = [name for name, value in _named(qformer, text, head).items() if value not in copied]
    unexpected = sorted(weights.keys() - used)
    logger.info(
        "BERT from %s: %d parameters matched, %d missing and new (%s), %d unexpected (%s)",
        *(folder, len(copied), len(new), _shortened(new), len(unexpected), _shortened(unexpected)),
    )


def _named(qformer: QFormer, text: QFormerText, head: TextHead | None) -> dict[str, nn.Parameter]:
    parts: dict[str, nn.Module] = {"qformer": qformer, "text": text} | ({} if head is None else {"text_head": head})
    return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_parameters()}


def _plain_name(name: str) -> str:
    """Without the prefix of heads, and with today's names of LayerNorm."""
    return (
        name.removeprefix("bert.")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
    )


def _shortened(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _check_sizes(config: dict, qformer: QFormer, folder: Path) -> None:
    ours = {
        "hidden_size": qformer.width,
        "num_hidden_layers": len(qformer.layers),
        "num_attention_heads": qformer.num_heads,
        "intermediate_size": qformer.feed_forward_width,
    }
    wrong = [f"{key} {config.get(key)} against {size}" for key, size in ours.items() if config.get(key) != size]
    if wrong:
        raise ValueError(
            f"BERT in {folder} does not fit the Q-Former: {'; '.join(wrong)}. "
            "Give the Q-Former BERT's sizes, or another BERT, or none."
        )


def _copy(target: nn.Linear | nn.LayerNorm, weight: Tensor, bias: Tensor) -> set[Tensor]:
    with torch.no_grad():
        target.weight.copy_(weight)
        target.bias.copy_(bias)
    return {target.weight, target.bias}


def _copy_embeddings(qformer: QFormer, text: QFormerText, take: Take) -> set[Tensor]:
    tables = {"word_embeddings": text.words.weight, "position_embeddings": text.positions.weight}
    for name, table in tables.items():
        _copy_rows(table, take(f"embeddings.{name}.weight"), name)
    norm = _copy(qformer.norm, take("embeddings.LayerNorm.weight"), take("embeddings.LayerNorm.bias"))
    return norm | {text.words.weight, text.positions.weight}


def _copy_head(head: TextHead, take: Take) -> set[Tensor]:
    at = "cls.predictions"
    copied = _copy(head.dense, take(f"{at}.transform.dense.weight"), take(f"{at}.transform.dense.bias"))
    copied |= _copy(head.norm, take(f"{at}.transform.LayerNorm.weight"), take(f"{at}.transform.LayerNorm.bias"))
    _copy_rows(head.bias, take(f"{at}.bias"), "output biases")
    return copied | {head.bias}


def _copy_rows(table: Tensor, source: Tensor, name: str) -> None:
    """The rows that both have; a vocabulary may have grown by special tokens."""
    shared = min(len(source), len(table))
    with torch.no_grad():
        table[:shared].copy_(source[:shared])
    if len(source) != len(table):
        logger.info("BERT has %d %s, the Q-Former %d: %d copied", len(source), name, len(table), shared)


def _copy_layer(qformer: QFormer, text: QFormerText, index: int, take: Take) -> set[Tensor]:
    def pair(name: str) -> tuple[Tensor, Tensor]:
        return take(f"encoder.layer.{index}.{name}.weight"), take(f"encoder.layer.{index}.{name}.bias")

    attention = qformer.stack()[index].self_attention
    key, value = pair("attention.self.key"), pair("attention.self.value")
    copied = _copy(attention.to_query, *pair("attention.self.query"))
    copied |= _copy(attention.to_key_value, torch.cat([key[0], value[0]]), torch.cat([key[1], value[1]]))
    copied |= _copy(attention.to_out, *pair("attention.output.dense"))
    copied |= _copy(attention.norm, *pair("attention.output.LayerNorm"))
    for feed_forward in (text.stack()[index], qformer.stack()[index].feed_forward):
        copied |= _copy(feed_forward.expand, *pair("intermediate.dense"))
        copied |= _copy(feed_forward.contract, *pair("output.dense"))
        copied |= _copy(feed_forward.norm, *pair("output.LayerNorm"))
    return copied
