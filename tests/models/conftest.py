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
