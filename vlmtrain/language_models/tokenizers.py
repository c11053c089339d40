"""Tokenizers by name or folder, and whether they fit a model."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from vlmtrain.nn.pretrained import builds_without_weights, is_local


def load_tokenizer(source: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A fast tokenizer from a folder (then nothing is downloaded) or from the hub by name."""
    local = is_local(source)
    tokenizer = AutoTokenizer.from_pretrained(
        str(Path(source).expanduser()) if local else source,
        revision=revision,
        use_fast=True,
        local_files_only=local,
        trust_remote_code=False,
    )
    if not tokenizer.is_fast:
        raise ValueError(f"{source}: its tokenizer has no fast version, which batch encoding needs.")
    return tokenizer


def load_words(source: str, vocab_size: int | None) -> tuple[PreTrainedTokenizerBase | None, int]:
    """The tokenizer, and how many words it has; ValueError where `vocab_size` says otherwise.

    A model that is only counted (`vlmtrain plan`) and is told the number needs no tokenizer: None stands for it.
    """
    if vocab_size is not None and builds_without_weights():
        return None, vocab_size
    tokenizer = load_tokenizer(source)
    if vocab_size not in (None, len(tokenizer)):
        raise ValueError(
            f"vocab_size is {vocab_size}, but tokenizer {source} has {len(tokenizer)} words; correct it or leave it out"
        )
    return tokenizer, len(tokenizer)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """ValueError where the tokenizer has tokens that the language model has no embedding for."""
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, the language model {known}; "
            "use the tokenizer it was trained with."
        )
