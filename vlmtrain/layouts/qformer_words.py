"""The words of a Q-Former or a cross encoder: a BERT-like tokenizer with a few more special tokens."""

from collections.abc import Sequence
from typing import Any

from vlmtrain.nn.pretrained import builds_without_weights

DECODER_START = "[DEC]"  # takes the place of [CLS] where text is written, so that the Q-Former knows which it is


def load_words(
    name: str, vocab_size: int | None = None, special_tokens: Sequence[str] = (DECODER_START,)
) -> tuple[Any, int]:
    """The tokenizer, and how many words it has with `special_tokens`; ValueError where `vocab_size` says otherwise.

    A model that is only counted (`vlmtrain plan`) and is told the number needs no tokenizer: None stands for it.
    """
    if vocab_size is not None and builds_without_weights():
        return None, vocab_size
    tokenizer = load_tokenizer(name, special_tokens)
    if vocab_size not in (None, len(tokenizer)):
        raise ValueError(
            f"vocab_size is {vocab_size}, but tokenizer {name}"
            + (f" with {', '.join(special_tokens)}" if special_tokens else "")
            + f" has {len(tokenizer)} words; "
            "correct it or leave it out"
        )
    return tokenizer, len(tokenizer)


def load_tokenizer(name: str, special_tokens: Sequence[str] = (DECODER_START,)) -> Any:
    """A tokenizer with [CLS], [SEP], [PAD] and, added where missing, `special_tokens`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    lacking = [kind for kind in ("cls_token", "sep_token", "pad_token") if getattr(tokenizer, kind) is None]
    if lacking:
        raise ValueError(f"tokenizer {name} has no {', '.join(lacking)}; stage 1 wants a BERT-like tokenizer")
    added = [token for token in special_tokens if token not in tokenizer.get_vocab()]
    if added:
        tokenizer.add_special_tokens({"additional_special_tokens": added})
    return tokenizer
