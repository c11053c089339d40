"""Writing with images in view: a cache, padding on the left, beams, and many shots (T48)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from fusion_toy import KINDS, items_of, logits_of, make_gated, make_language_model, rows
from torch import Tensor

from vlmtrain.batch import TextBatch, VisualTokens
from vlmtrain.fusions.base import Fusion
from vlmtrain.fusions.deepstack import DeepStack
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.layouts.causal import CausalLayout

NEW, BEAMS, NEVER = 5, 3, 9999


def stacking(language_model: CausalLanguageModel) -> Fusion:
    fusion = DeepStack(language_model.width, 2)
    fusion.install(language_model)
    return fusion


FUSIONS: dict[str, Callable[[CausalLanguageModel], Fusion]] = {
    "gated": lambda language_model: make_gated(language_model, gates=1.0),
    "interleave": lambda language_model: Interleave(language_model.width),
    "deepstack": stacking,
}


def prompts(fusion: Fusion, *patterns: str) -> tuple[TextBatch, VisualTokens]:
    """Rows padded on the left in which an item takes up what the fusion wants, and the items."""
    spelled = (pattern.replace("i", "i" * fusion.placeholders(3)) for pattern in patterns)
    return rows(*spelled, left=True), items_of(*patterns)


def make(kind: str, tokenizer: str) -> CausalLanguageModel:
    """It stops at a token that does not come, so that every continuation is `NEW` tokens long."""
    language_model = make_language_model(kind, tokenizer)
    layout = language_model.layout()
    assert isinstance(layout, CausalLayout)
    layout.stop_ids = [NEVER]
    return language_model


def write(
    language_model: CausalLanguageModel, fusion: Fusion, text: TextBatch, visual: VisualTokens, num_beams: int = 1
) -> Tensor:
    with fusion.entering(language_model, text, visual) as embeddings:
        return language_model.generate(embeddings, text.attention_mask, NEW, num_beams)


def generate(
    language_model: CausalLanguageModel, fusion: Fusion, text: TextBatch, visual: VisualTokens, num_beams: int
) -> Any:
    """As `write`, with what transformers tells of logits and scores."""
    with torch.no_grad(), fusion.entering(language_model, text, visual) as embeddings:
        return language_model.model.generate(
            inputs_embeds=embeddings,
            attention_mask=text.attention_mask.long(),
            max_new_tokens=NEW,
            num_beams=num_beams,
            eos_token_id=NEVER,
            pad_token_id=1,
            return_dict_in_generate=True,
            output_logits=True,
            output_scores=True,
        )


def uncached_logits(
    language_model: CausalLanguageModel, fusion: Fusion, text: TextBatch, visual: VisualTokens, new: Tensor
) -> Tensor:
    """[B, NEW, vocabulary]: what predicts each token of `new` [B, NEW], the whole row read at once."""
    is_new = torch.ones_like(new, dtype=torch.bool)
    whole = replace(
        text,
        input_ids=torch.cat([text.input_ids, new], 1),
        attention_mask=torch.cat([text.attention_mask, is_new], 1),
        visual_mask=torch.cat([text.visual_mask, ~is_new], 1),
        targets=torch.cat([text.input_ids, new], 1),
    )
    with torch.no_grad():
        return logits_of(language_model, fusion, whole, visual)[:, -NEW - 1 : -1]


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_cached_writing_is_uncached_writing(kind: str, name: str, byte_tokenizer: str) -> None:
    language_model = make(kind, byte_tokenizer)
    fusion = FUSIONS[name](language_model)
    text, visual = prompts(fusion, "titti", "iittt")
    found = generate(language_model, fusion, text, visual, num_beams=1)
    cached = torch.stack(found.logits, dim=1)
    uncached = uncached_logits(language_model, fusion, text, visual, found.sequences)
    assert cached.shape == uncached.shape == (2, NEW, 320)
    torch.testing.assert_close(cached, uncached, atol=1e-4, rtol=1e-5)
    assert write(language_model, fusion, text, visual).tolist() == found.sequences.tolist()
    other = VisualTokens(visual.embeddings.flip(0), visual.tokens_per_item, visual.items_per_sample)
    assert (generate(language_model, fusion, text, other, 1).logits[-1] - cached[:, -1]).abs().max() > 1e-2


@pytest.mark.parametrize("num_beams", [1, BEAMS])
@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_batch_are_written_as_alone(kind: str, name: str, num_beams: int, byte_tokenizer: str) -> None:
    """Padding on the left, different numbers of items, and beams that read the items of their own sample."""
    language_model = make(kind, byte_tokenizer)
    fusion = FUSIONS[name](language_model)
    patterns = ("titt", "tt", "iitit")
    text, visual = prompts(fusion, *patterns)
    together = generate(language_model, fusion, text, visual, num_beams)
    assert write(language_model, fusion, text, visual, num_beams).tolist() == together.sequences.tolist()
    items = iter(visual.embeddings.split(visual.tokens_per_item))
    for row, pattern in enumerate(patterns):
        real, count = int(text.attention_mask[row].sum()), pattern.count("i")
        own = [next(items) for _ in range(count)]
        alone = replace(
            text,
            input_ids=text.input_ids[row : row + 1, -real:],
            attention_mask=text.attention_mask[row : row + 1, -real:],
            visual_mask=text.visual_mask[row : row + 1, -real:],
            placeholders=count * fusion.placeholders(3),
        )
        tokens = VisualTokens(torch.cat([visual.embeddings[:0], *own]), [3] * count, [count])
        by_itself = generate(language_model, fusion, alone, tokens, num_beams)
        assert by_itself.sequences.tolist() == together.sequences[row : row + 1].tolist()


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_beams_are_scored_by_what_the_model_thinks_of_them(kind: str, name: str, byte_tokenizer: str) -> None:
    """The score that beam search kept, through all reordering of rows, is that of the row read at once."""
    language_model = make(kind, byte_tokenizer)
    fusion = FUSIONS[name](language_model)
    text, visual = prompts(fusion, "titti", "iittt")

    def likelihood(new: Tensor) -> Tensor:
        shares = uncached_logits(language_model, fusion, text, visual, new).float().log_softmax(-1)
        return shares.gather(-1, new.unsqueeze(-1)).squeeze(-1).mean(-1)

    found = generate(language_model, fusion, text, visual, BEAMS)
    torch.testing.assert_close(found.sequences_scores, likelihood(found.sequences), atol=1e-4, rtol=0)


def checksum(language_model: CausalLanguageModel, fusion: Fusion) -> float:
    return sum(value.double().abs().sum().item() for part in (language_model, fusion) for value in part.parameters())


@pytest.mark.parametrize("name", FUSIONS)
def test_t48_thirty_two_shots_and_a_query(name: str, byte_tokenizer: str) -> None:
    """Same weights, no update; beside a row without any item."""
    language_model = make("opt", byte_tokenizer)
    fusion = FUSIONS[name](language_model)
    before = checksum(language_model, fusion)
    text, visual = prompts(fusion, "itt" * 32 + "i", "tt")
    found = generate(language_model, fusion, text, visual, 1)
    assert all(logits.isfinite().all() for logits in found.logits)
    assert checksum(language_model, fusion) == before
    changed = visual.embeddings.clone()
    changed[-1] += 3.0
    other = VisualTokens(changed, visual.tokens_per_item, visual.items_per_sample)
    moved = (torch.stack(generate(language_model, fusion, text, other, 1).logits) != torch.stack(found.logits)).any(-1)
    assert moved[:, 0].all() and not moved[:, 1].any()
