"""Rows of any language model, and beside them what a connector is told to look for (InstructBLIP)."""

from collections.abc import Callable
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from vlmtrain.batch import TextBatch
from vlmtrain.layout import Layout, Part, Text
from vlmtrain.layouts.pair import PairLayout


class InstructedLayout(Layout):
    """Writes rows as `inner` does, and the prompt of each sample once more in the connector's own tokens.

    The prompt is all text of a sample that is not supervised, in training and generation alike: no answer is ever part
    of it, also not that of an earlier turn.  A sample without a prompt has the row [class] [separator].

    Args:
        inner: layout of the language model.
        tokenizer: of the connector, BERT-like.
        max_tokens: longest prompt of the connector, special tokens counted in; cut ones count in `truncated`.
    """

    def __init__(self, inner: Layout, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        self.inner = inner
        self.tokenizer = inner.tokenizer
        self.prompts = PairLayout(tokenizer, max_tokens)

    def write(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        return self._instructed(self.inner.write(samples, placeholders_per_item), samples)

    def write_prompts(self, samples: list[list[Part]], placeholders_per_item: Callable[[int], int]) -> TextBatch:
        return self._instructed(self.inner.write_prompts(samples, placeholders_per_item), samples)

    def read(self, token_ids: list[int]) -> str:
        return self.inner.read(token_ids)

    def _instructed(self, text: TextBatch, samples: list[list[Part]]) -> TextBatch:
        instruction = self.prompts.write_whole([_prompt(parts) for parts in samples])
        return replace(text, instruction=instruction, truncated=text.truncated + instruction.truncated)


def _prompt(parts: list[Part]) -> str:
    """Parts that follow each other are one text; an image or an answer between them parts them."""
    return "".join(part.string if isinstance(part, Text) and not part.supervised else " " for part in parts).strip()
