"""Tokenizers by name or folder, and whether they fit a model."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

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


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """ValueError where the tokenizer has tokens that the language model has no embedding for."""
    known = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > known:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, the language model {known}; "
            "use the tokenizer it was trained with."
        )
