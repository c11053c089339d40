"""A BERT-like tokenizer of whole words and of pieces, for models that read pairs."""

import pytest

PIECES = ["tri", "##angle", "##s", "cir", "##cle", "a", "red", "blue", "small", "large", "of", "left", "is", "green"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
NUM_WORDS = 60


@pytest.fixture(scope="session")
def words_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import BertTokenizerFast

    words = [*SPECIAL, *PIECES]
    words += [f"w{number}" for number in range(NUM_WORDS - len(words))]
    folder = tmp_path_factory.mktemp("words")
    BertTokenizerFast(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def masking_tokenizer(byte_tokenizer: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The one that spells any text, with a mask token: one that it has and that stands nowhere else."""
    from transformers import AutoTokenizer

    folder, tokenizer = tmp_path_factory.mktemp("masking"), AutoTokenizer.from_pretrained(byte_tokenizer)
    tokenizer.add_special_tokens({"mask_token": "<s>"})
    tokenizer.save_pretrained(folder)
    return str(folder)
