"""Tiny language models of every kind, fusions in them, and rows of text with items at chosen places."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from vlmtrain.batch import TextBatch, VisualTokens
from vlmtrain.fusions.base import Fusion
from vlmtrain.fusions.flamingo_block import FlamingoBlock
from vlmtrain.fusions.gated_block import GatedBlock
from vlmtrain.fusions.gated_cross_attention import GatedCrossAttention
from vlmtrain.fusions.idefics_block import IdeficsBlock
from vlmtrain.fusions.mllama_block import MllamaBlock
from vlmtrain.language_models.base import LanguageModel
from vlmtrain.language_models.causal import CausalLanguageModel

WIDTH, VOCABULARY, DEPTH, TOKENS_PER_ITEM = 32, 320, 4, 3
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4, "vocab_size": VOCABULARY}
GROUPED = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2}
KINDS: dict[str, dict[str, object]] = {
    "opt": {"model_type": "opt", **SIZES, "ffn_dim": 64, "word_embed_proj_dim": WIDTH},
    "llama": {"model_type": "llama", **GROUPED},
    "gpt2": {"model_type": "gpt2", "n_embd": WIDTH, "n_layer": DEPTH, "n_head": 4, "vocab_size": VOCABULARY},
    "qwen3": {"model_type": "qwen3", **GROUPED, "head_dim": 8},
    "gemma2": {"model_type": "gemma2", **GROUPED, "head_dim": 8, "sliding_window": 8},
    "mamba": {"model_type": "mamba", "hidden_size": WIDTH, "num_hidden_layers": DEPTH, "vocab_size": VOCABULARY},
}
BLOCKS: dict[str, Callable[..., GatedBlock]] = {
    "flamingo": partial(FlamingoBlock, num_heads=2, head_width=8),
    "idefics": partial(IdeficsBlock, num_heads=2, head_width=8),
    "mllama": partial(MllamaBlock, num_heads=4, head_width=8, num_key_value_heads=2),
}


def make_language_model(kind: str, tokenizer: str | None = None) -> CausalLanguageModel:
    """Frozen, with weights large enough for everything to be heard."""
    torch.manual_seed(0)
    language_model = CausalLanguageModel(architecture=KINDS[kind], tokenizer=tokenizer).eval()
    with torch.no_grad():
        for name, parameter in language_model.named_parameters():
            if parameter.dim() > 1 and "A_log" not in name:
                parameter.mul_(3)
    return language_model.requires_grad_(False)


def make_gated(
    language_model: LanguageModel, every_n_layers: int = 2, block: str = "flamingo", gates: float = 0.0
) -> GatedCrossAttention:
    torch.manual_seed(1)
    fusion = GatedCrossAttention(language_model.width, BLOCKS[block], every_n_layers)
    fusion.install(language_model)
    open_gates(fusion, gates)
    return fusion


def open_gates(fusion: GatedCrossAttention, value: float) -> None:
    with torch.no_grad():
        for name, parameter in fusion.named_parameters():
            if name.endswith("gate"):
                parameter.fill_(value)


def rows(*patterns: str, left: bool = False, seed: int = 2) -> TextBatch:
    """Rows in which `i` is an item and `t` a token of text, padded to the longest; targets are other random tokens."""
    length = max(len(pattern) for pattern in patterns)
    padded = [pattern.rjust(length, " ") if left else pattern.ljust(length, " ") for pattern in patterns]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 300, (len(patterns), length), generator=generator)
    is_item = torch.tensor([[letter == "i" for letter in row] for row in padded])
    is_real = torch.tensor([[letter != " " for letter in row] for row in padded])
    ids = ids.masked_fill(is_item | ~is_real, 1)
    targets = torch.randint(5, 300, ids.shape, generator=generator)
    return TextBatch(ids, is_real, is_item, targets, int(is_item.sum()), ids.numel())


def items(*counts: int, tokens_per_item: int = TOKENS_PER_ITEM, width: int = WIDTH, seed: int = 3) -> VisualTokens:
    """Random visual tokens of samples with that many items."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(sum(counts) * tokens_per_item, width, generator=generator)
    return VisualTokens(embeddings, [tokens_per_item] * sum(counts), list(counts))


def items_of(*patterns: str, seed: int = 3) -> VisualTokens:
    return items(*(pattern.count("i") for pattern in patterns), seed=seed)


def logits_of(language_model: LanguageModel, fusion: Fusion, text: TextBatch, visual: VisualTokens) -> Tensor:
    assert text.targets is not None
    with fusion.entering(language_model, text, visual) as embeddings:
        return language_model.logits(embeddings, text.attention_mask, text.targets)


def plain_logits(language_model: LanguageModel, text: TextBatch) -> Tensor:
    """Of the language model by itself, on the same rows."""
    assert text.targets is not None
    return language_model.logits(language_model.embed(text.input_ids), text.attention_mask, text.targets)
