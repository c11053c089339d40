"""Tokenizers by name or folder."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from vlmtrain.nn.pretrained import is_local


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
