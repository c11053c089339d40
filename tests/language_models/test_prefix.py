"""Prefix attention: what the prompt and the answer see, and which architectures can."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.prefix import PrefixLanguageModel
from vlmtrain.layouts.causal import CausalLayout

VOCABULARY = 320
SPECIAL = {"vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **SPECIAL}
GROUPED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
MAMBA2 = {"mamba_n_groups": 1, "mamba_d_state": 16, "mamba_chunk_size": 8, "mamba_n_heads": 8, "mamba_d_head": 8}
ABLE = {
    "opt": {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **SPECIAL},
    "llama": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 24},
    "phi": GROUPED,
}
UNABLE = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, **SPECIAL},
    "mamba2": {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "n_groups": 1,
               "state_size": 16, "chunk_size": 8, **SPECIAL},
    "bamba": {**GROUPED, "attn_layer_indices": [0], **MAMBA2},
    "falcon_h1": {**GROUPED, "head_dim": 8, "mamba_d_ssm": 64, **MAMBA2},
    "jamba": {**GROUPED, "attn_layer_period": 2, "attn_layer_offset": 0, "num_experts": 1, "num_experts_per_tok": 1,
              "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, **SPECIAL},
}  # fmt: skip
REASONS = {
    "mamba": "it fails with such a mask",
    "mamba2": "in layer 0 a token of the prefix does not see the one behind it",
    "bamba": "in layer 1 a token of the prefix does not see the one behind it",
    "falcon_h1": "in layer 0 padding is seen",
    "jamba": "in layer 1 a token of the prefix does not see the one behind it",
    "bloom": "it fails with such a mask",
}


def make(name: str = "llama", tokenizer: str | None = None, louder: float = 4.0) -> PrefixLanguageModel:
    torch.manual_seed(0)
    architecture = {"model_type": name, **ABLE[name]}
    language_model = PrefixLanguageModel(architecture=architecture, tokenizer=tokenizer, max_tokens=60).eval()
    with torch.no_grad():  # random weights so small that nothing would be heard otherwise
        for parameter in language_model.parameters():
            parameter.mul_(louder if parameter.ndim > 1 else 1)
    return language_model


def rows(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Four positions of prefix and five after it; then three, three, and padding."""
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(2, 9, width, generator=generator)
    targets = torch.randint(0, VOCABULARY, (2, 9), generator=generator)
    targets[0, :3] = targets[1, :2] = targets[1, 5:] = targets[0, 8] = IGNORED_TARGET
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    return embeddings, mask, targets


@pytest.mark.parametrize("name", ABLE)
def test_t56_the_prefix_sees_itself_both_ways_and_nothing_later(name: str) -> None:
    language_model = make(name)
    embeddings, mask, targets = rows(language_model.width)
    base = language_model.logits(embeddings, mask, targets)
    for row, prefix, length in ((0, 4, 9), (1, 3, 6)):
        for position in range(9):
            changed = embeddings.clone()
            changed[row, position] += torch.randn(language_model.width, generator=torch.Generator().manual_seed(2))
            moved = (language_model.logits(changed, mask, targets) - base)[row, :length].abs().amax(-1)
            heard = (moved > 1e-6 * base.abs().max()).tolist()
            if position >= length:
                assert not any(heard)
            elif position < prefix:
                assert all(heard)
            else:
                assert heard == [place >= position for place in range(length)]
        assert (language_model.logits(changed, mask, targets)[1 - row] == base[1 - row]).all()


@pytest.mark.parametrize("name", ABLE)
def test_t56_the_loss_of_a_prefix_of_one_token_is_that_of_a_causal_model(name: str) -> None:
    language_model = make(name)
    embeddings, mask, targets = rows(language_model.width)
    whole = torch.where(mask, torch.arange(9).expand(2, 9), IGNORED_TARGET)
    causal = CausalLanguageModel.from_model(language_model.model, None)
    ours, theirs = language_model.logits(embeddings, mask, whole), causal.logits(embeddings, mask, whole)
    assert (ours - theirs)[mask].abs().max() < 1e-5 * theirs.abs().max()
    assert (language_model.logits(embeddings, mask, targets) - theirs)[mask].abs().max() > 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("name", ABLE)
def test_cached_generation_of_padded_rows_is_uncached_generation_of_each(byte_tokenizer: str, name: str) -> None:
    language_model = make(name, byte_tokenizer, louder=8)
    layout = language_model.layout()
    assert isinstance(layout, CausalLayout)
    prompts = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))  # no words: Gemma would echo the last
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, :4] = False
    written = language_model.generate(prompts, mask, 6)
    for place in range(2):
        read = prompts[place][mask[place]].unsqueeze(0)
        prompt, said = read.shape[1], list[int]()
        while len(said) < 6 and (not said or said[-1] not in layout.stop_ids):
            everything = torch.ones(1, read.shape[1], dtype=torch.bool)
            targets = torch.where(torch.arange(read.shape[1]) < prompt - 1, IGNORED_TARGET, 0).unsqueeze(0)
            said.append(int(language_model.logits(read, everything, targets)[0, -1].argmax()))
            read = torch.cat([read, language_model.embed(torch.tensor([said[-1:]]))], 1)
        assert written[place, : len(said)].tolist() == said
    assert not language_model.model._forward_pre_hooks


@pytest.mark.parametrize("name", ABLE)
def test_writing_after_a_prompt_read_one_way_would_be_noticed(name: str) -> None:
    class OneWay(PrefixLanguageModel):
        generating = CausalLanguageModel.generating

    with pytest.raises(ValueError, match=r"cannot be used.*its logits are off by"):
        OneWay.from_model(make(name).model, None)


@pytest.mark.parametrize("name", UNABLE)
def test_architectures_that_cannot_are_refused_by_trying(name: str) -> None:
    architecture = {"model_type": name, **UNABLE[name]}
    assert CausalLanguageModel(architecture=architecture).width == 32
    with pytest.raises(ValueError, match=f"cannot read a prefix both ways: {REASONS[name]}"):
        PrefixLanguageModel(architecture=architecture)


def test_a_window_is_not_switched_off_silently() -> None:
    language_model = make("gemma2")
    for length in (24, 25):
        embeddings = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(0))
        mask, targets = torch.ones(1, length, dtype=torch.bool), torch.zeros(1, length, dtype=torch.long)
        if length == 24:
            assert language_model.logits(embeddings, mask, targets).shape == (1, 24, VOCABULARY)
            continue
        with pytest.raises(ValueError, match=r"sample of 25 positions.*window of 24"):
            language_model.logits(embeddings, mask, targets)


def test_t23_frozen_models_recompute_with_the_same_gradient() -> None:
    gradients = []
    for is_on in (False, True):
        language_model = make().requires_grad_(False)
        if is_on:
            language_model.enable_gradient_checkpointing()
        embeddings, mask, targets = rows(32)
        embeddings.requires_grad_()
        found = language_model.target_states(embeddings, mask, targets)
        assert len(found.states) == int((targets != IGNORED_TARGET).sum())
        F.cross_entropy(found.head(found.states), found.targets).backward()
        gradients.append(embeddings.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0] is not None and (gradients[0][0, :8].abs().amax(-1) > 0).all()
    assert (gradients[0][1, 6:] == 0).all()


def test_low_precision_is_close() -> None:
    language_model = make()
    embeddings, mask, targets = rows(32)
    exact = language_model.logits(embeddings, mask, targets)
    language_model.to(torch.bfloat16)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            rough = language_model.logits(embeddings.bfloat16(), mask, targets).float()
        assert (rough - exact)[mask].abs().max() < 0.05 * exact.abs().max()


def test_shapes_are_built_without_weights_to_try() -> None:
    with torch.device("meta"):
        language_model = PrefixLanguageModel(architecture={"model_type": "llama", **GROUPED})
    assert isinstance(PrefixLanguageModel.from_model(make().model, None), PrefixLanguageModel)
    assert language_model.width == 32
