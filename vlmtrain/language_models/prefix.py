"""Decoder-only language models whose prompt sees itself both ways."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.heads import positions
from vlmtrain.language_models.prefix_probe import check_prefix_attention
from vlmtrain.language_models.probes import try_out
from vlmtrain.language_models.rows import check_window
from vlmtrain.nn.prefix_mask import prefix_mask, prefix_of


class PrefixLanguageModel(CausalLanguageModel):
    """A causal language model read as a prefix one: SimVLM (Wang et al. 2022), GIT, PaliGemma (Beyer et al. 2024).

    A row up to the position that predicts its first supervised target is the prefix: vision and prompt, which see all
    of themselves.  What follows sees the prefix and what stands before it, also where later turns ask again.  When
    writing, the whole prompt is the prefix.  Arguments are those of CausalLanguageModel.

    ValueError where the architecture cannot: every layer is tried on a few tokens when it is built with weights.  A
    layer with a sliding window would not keep to it, so rows longer than the window are refused as well.
    """

    def adopt(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, max_tokens: int, terminator: str | None
    ) -> None:
        if model.get_input_embeddings().weight.device.type != "meta":
            try_out(model, partial(check_prefix_attention, model))
        super().adopt(model, tokenizer, max_tokens, terminator)

    def in_prefix(self, targets: Tensor) -> Tensor:
        return prefix_of(targets)

    def generating(self) -> AbstractContextManager[None]:
        return _prompt_seeing_itself(self.model, super().generating())


@contextmanager
def _prompt_seeing_itself(model: PreTrainedModel, generating: AbstractContextManager[None]) -> Iterator[None]:
    """In this block the first step of `model.generate`, which alone brings embeddings, reads its row both ways."""

    def look_both_ways(
        module: torch.nn.Module, arguments: tuple[object, ...], options: dict[str, Tensor | None]
    ) -> tuple[tuple[object, ...], dict[str, Tensor | None]]:
        embeddings, mask = options.get("inputs_embeds"), options.get("attention_mask")
        if embeddings is None:
            return arguments, options
        if mask is None:  # what generate makes of a mask without padding
            mask = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        assert mask.ndim == 2, "a mask that generate made itself would be replaced unseen"
        check_window(model, embeddings.shape[1])
        both_ways = prefix_mask(mask, torch.ones_like(mask, dtype=torch.bool), embeddings.dtype)
        return arguments, {**options, "attention_mask": both_ways, "position_ids": positions(mask)}

    handle = model.register_forward_pre_hook(look_both_ways, with_kwargs=True)
    try:
        with generating:
            yield
    finally:
        handle.remove()
