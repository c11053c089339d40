"""The words of a Q-Former: a BERT-like tokenizer with one more special token."""

from typing import Any

from vlmtrain.nn.pretrained import builds_without_weights

DECODER_START = "[DEC]"  # takes the place of [CLS] where text is written, so that the Q-Former knows which it is


def load_words(name: str, vocab_size: int | None = None) -> tuple[Any, int]:
    """The tokenizer, and how many words it has with [DEC]; ValueError where `vocab_size` says otherwise.

    A model that is only counted (`vlmtrain plan`) and is told the number needs no tokenizer: None stands for it.
    """
    if vocab_size is not None and builds_without_weights():
        return None, vocab_size
    tokenizer = load_tokenizer(name)
    if vocab_size not in (None, len(tokenizer)):
        raise ValueError(
            f"vocab_size is {vocab_size}, but tokenizer {name} with [DEC] has {len(tokenizer)} words; "
            "correct it or leave it out"
        )
    return tokenizer, len(tokenizer)


def load_tokenizer(name: str) -> Any:
    """A tokenizer with [CLS], [SEP], [PAD] and, added where missing, [DEC]."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    lacking = [kind for kind in ("cls_token", "sep_token", "pad_token") if getattr(tokenizer, kind) is None]
    if lacking:
        raise ValueError(f"tokenizer {name} has no {', '.join(lacking)}; stage 1 wants a BERT-like tokenizer")
    if DECODER_START not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [DECODER_START]})
    return tokenizer
