"""The weights of a pretrained BERT, for modules that are made of its parts."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vlmtrain.nn.post_norm import PostNormAttention, PostNormFeedForward

logger = logging.getLogger(__name__)


class BertWeights:
    """What a Hugging Face BERT folder holds, copied part by part into `reader`, and told of at the end.

    Args:
        folder: holds config.json and model.safetensors of a BertModel, or of one with the prefix `bert.`.
        reader: who is made of it, in words.

    Raises:
        ValueError: the folder holds no BERT; later, one of another size or without a part.
    """

    def __init__(self, folder: str | Path, reader: str) -> None:
        self.folder, self.reader = Path(folder), reader
        files = ("config.json", "model.safetensors")
        missing = [name for name in files if not (self.folder / name).is_file()]
        if missing:
            raise ValueError(f"{folder} is no BERT folder: {', '.join(missing)} not found; save one there first")
        self._config = json.loads((self.folder / "config.json").read_text())
        weights = load_file(self.folder / "model.safetensors")
        self._weights = {_plain_name(name): tensor for name, tensor in weights.items()}
        self._used: set[str] = set()
        self._copied: set[Tensor] = set()

    def check_sizes(self, width: int, depth: int, num_heads: int, feed_forward_width: int) -> None:
        """ValueError that names every size in which the reader differs."""
        ours = {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": num_heads,
            "intermediate_size": feed_forward_width,
        }
        told = [(key, self._config.get(key), size) for key, size in ours.items()]
        wrong = [f"{key} {its} against {size}" for key, its, size in told if its != size]
        if wrong:
            name = self.reader.removeprefix("the ")
            raise ValueError(
                f"BERT in {self.folder} does not fit the {name}: {'; '.join(wrong)}. "
                f"Give the {name} BERT's sizes, or another BERT, or none."
            )

    def copy_embeddings(self, words: nn.Embedding, positions: nn.Embedding, norm: nn.LayerNorm) -> None:
        """Words that both vocabularies have room for; rows beyond BERT's stay new."""
        self._copy_rows(words.weight, "embeddings.word_embeddings.weight", "word_embeddings")
        self._copy_rows(positions.weight, "embeddings.position_embeddings.weight", "position_embeddings")
        self._copy(norm, "embeddings.LayerNorm")

    def copy_attention(self, index: int, attention: PostNormAttention) -> None:
        """The self-attention of BERT's layer `index`."""
        at = f"encoder.layer.{index}.attention"
        self._copy(attention.to_query, f"{at}.self.query")
        self._copy(attention.to_key_value, f"{at}.self.key", f"{at}.self.value")
        self._copy(attention.to_out, f"{at}.output.dense")
        self._copy(attention.norm, f"{at}.output.LayerNorm")

    def copy_feed_forward(self, index: int, feed_forward: PostNormFeedForward) -> None:
        """The feed-forward of BERT's layer `index`."""
        at = f"encoder.layer.{index}"
        self._copy(feed_forward.expand, f"{at}.intermediate.dense")
        self._copy(feed_forward.contract, f"{at}.output.dense")
        self._copy(feed_forward.norm, f"{at}.output.LayerNorm")

    def copy_head(self, dense: nn.Linear, norm: nn.LayerNorm, bias: nn.Parameter) -> None:
        """The masked-word head, where the folder has one."""
        at = "cls.predictions"
        if f"{at}.bias" in self._weights:
            self._copy(dense, f"{at}.transform.dense")
            self._copy(norm, f"{at}.transform.LayerNorm")
            self._copy_rows(bias, f"{at}.bias", "output biases")

    def tell(self, parts: Mapping[str, nn.Module]) -> None:
        """Log how the parameters of the reader's `parts` matched."""
        named = {f"{part}.{name}": value for part, its in parts.items() for name, value in its.named_parameters()}
        new = [name for name, value in named.items() if value not in self._copied]
        unexpected = sorted(self._weights.keys() - self._used)
        logger.info(
            "BERT from %s: %d parameters matched, %d missing and new (%s), %d unexpected (%s)",
            *(self.folder, len(self._copied), len(new), _shortened(new), len(unexpected), _shortened(unexpected)),
        )

    def _take(self, name: str) -> Tensor:
        if name not in self._weights:
            raise ValueError(f"{self.folder}/model.safetensors lacks {name}; is it a BERT encoder?")
        self._used.add(name)
        return self._weights[name]

    def _copy(self, target: nn.Linear | nn.LayerNorm, *sources: str) -> None:
        """Weights and biases of `sources`, one below the other."""
        with torch.no_grad():
            target.weight.copy_(torch.cat([self._take(f"{source}.weight") for source in sources]))
            target.bias.copy_(torch.cat([self._take(f"{source}.bias") for source in sources]))
        self._copied |= {target.weight, target.bias}

    def _copy_rows(self, table: Tensor, source: str, name: str) -> None:
        """The rows that both have; a vocabulary may have grown by special tokens."""
        its = self._take(source)
        shared = min(len(its), len(table))
        with torch.no_grad():
            table[:shared].copy_(its[:shared])
        self._copied.add(table)
        if len(its) != len(table):
            logger.info("BERT has %d %s, %s %d: %d copied", len(its), name, self.reader, len(table), shared)


def _plain_name(name: str) -> str:
    """Without the prefix of heads, and with today's names of LayerNorm."""
    return (
        name.removeprefix("bert.")
        .replace("LayerNorm.gamma", "LayerNorm.weight")
        .replace("LayerNorm.beta", "LayerNorm.bias")
    )


def _shortened(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
