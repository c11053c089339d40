"""Families of decoder-only models: attention, recurrence, and both; and what is refused because it would be wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.layout import Text
from vlmtrain.layouts.causal import CausalLayout

VOCABULARY = 320
SPECIAL = {"vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **SPECIAL}
GROUPED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
MAMBA2 = {"mamba_n_groups": 1, "mamba_d_state": 16, "mamba_chunk_size": 8, "mamba_n_heads": 8, "mamba_d_head": 8}
FAMILIES = {
    "opt": {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **SPECIAL},
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 64},
    "phi": GROUPED,
    "phi3": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 64},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, **SPECIAL},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, **SPECIAL},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, **SPECIAL},
    "mamba2": {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "n_groups": 1,
               "state_size": 16, "chunk_size": 8, **SPECIAL},
    "bamba": {**GROUPED, "attn_layer_indices": [1], **MAMBA2},
    "falcon_h1": {**GROUPED, "head_dim": 8, "mamba_d_ssm": 64, "lm_head_multiplier": 0.3, **MAMBA2},
    "zamba2": {**GROUPED, "num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "mamba"],
               "num_mem_blocks": 1, "mamba_d_state": 16, "n_mamba_heads": 8, "mamba_ngroups": 1, "chunk_size": 8},
    "jamba": {**GROUPED, "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "num_experts_per_tok": 1,
              "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4},
}  # fmt: skip


def make(name: str, tokenizer: str | None = None, louder: float = 4.0) -> CausalLanguageModel:
    torch.manual_seed(0)
    architecture = {"model_type": name, **FAMILIES[name]}
    language_model = CausalLanguageModel(architecture=architecture, tokenizer=tokenizer).eval()
    with torch.no_grad():  # random weights so small that nothing would be heard otherwise
        for parameter in language_model.parameters():
            parameter.mul_(louder if parameter.ndim > 1 else 1)
    return language_model.requires_grad_(False)


def row(width: int, length: int, seed: int) -> Tensor:
    return torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_reaches_every_embedding_through_frozen_weights_and_none_that_is_padding(name: str) -> None:
    language_model = make(name)
    short, pads = row(language_model.width, 5, 1), row(language_model.width, 4, 2)
    embeddings = torch.cat([row(language_model.width, 9, 3), torch.cat([short, pads], 1)]).requires_grad_()
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 5:] = False
    targets = torch.randint(0, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(4))
    targets[1, 4:] = IGNORED_TARGET
    targets[:, :2] = IGNORED_TARGET
    found = language_model.target_states(embeddings, mask, targets)
    F.cross_entropy(found.head(found.states), found.targets).backward()
    assert embeddings.grad is not None
    reached = embeddings.grad.abs().amax(-1) > 0
    assert reached[0].all() and reached[1, :4].all() and not reached[1, 5:].any()
    assert all(parameter.grad is None for parameter in language_model.parameters())
    everyone = language_model.logits(embeddings, mask, targets)[1:, :5]
    alone = language_model.logits(short, mask[1:, :5], targets[1:, :5])
    assert (everyone - alone).abs().max() < 1e-5 * alone.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_on_the_left_changes_no_logits(name: str) -> None:
    language_model = make(name)
    short = row(language_model.width, 5, 1)
    padded = torch.cat([row(language_model.width, 4, 2), short], 1)
    mask = torch.tensor([[False] * 4 + [True] * 5])
    targets = torch.zeros(1, 9, dtype=torch.long)
    alone = language_model.logits(short, mask[:, 4:], targets[:, 4:])
    everyone = language_model.logits(padded, mask, targets)[:, 4:]
    assert (everyone - alone).abs().max() < 1e-5 * alone.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_cached_generation_of_padded_rows_is_uncached_generation_of_each(byte_tokenizer: str, name: str) -> None:
    language_model = make(name, byte_tokenizer)
    layout = language_model.layout()
    assert isinstance(layout, CausalLayout)
    text = layout.write_prompts([[Text("a")], [Text("what colour")]], lambda tiles: 0)
    assert not text.attention_mask.all()
    written = language_model.generate(language_model.embed(text.input_ids), text.attention_mask, 6)
    for place in range(2):
        read = language_model.embed(text.input_ids[place][text.attention_mask[place]].unsqueeze(0))
        said: list[int] = []
        while len(said) < 6 and (not said or said[-1] not in layout.stop_ids):
            everything = torch.ones(1, read.shape[1], dtype=torch.bool)
            logits = language_model.logits(read, everything, torch.zeros_like(everything, dtype=torch.long))
            said.append(int(logits[0, -1].argmax()))
            read = torch.cat([read, language_model.embed(torch.tensor([said[-1:]]))], 1)
        assert written[place, : len(said)].tolist() == said
    assert "prepare_inputs_for_generation" not in vars(language_model.model)


@pytest.mark.parametrize("name", ["bamba", "zamba2", "jamba"])
def test_hybrids_give_all_their_layers(name: str) -> None:
    layers = make(name).input_layers
    assert len(layers) == FAMILIES[name]["num_hidden_layers"]


def test_a_model_that_writes_other_than_it_reads_is_refused() -> None:
    """As a state-space model would that lets its state run through padding."""
    model = make("llama").model
    forward = model.forward

    def forgets_padding(*arguments: object, attention_mask: Tensor, **options: object) -> object:
        return forward(*arguments, attention_mask=torch.ones_like(attention_mask), **options)

    model.forward = forgets_padding
    with pytest.raises(ValueError, match=r"LlamaForCausalLM cannot be used.*its logits are off by"):
        CausalLanguageModel.from_model(model, None)


def test_a_model_that_cannot_write_from_embeddings_is_refused() -> None:
    model = make("llama").model
    model.prepare_inputs_for_generation = lambda input_ids, **kwargs: {"input_ids": input_ids}
    with pytest.raises(ValueError, match=r"LlamaForCausalLM cannot be used.*it fails"):
        CausalLanguageModel.from_model(model, None)


def test_an_unknown_head_is_refused_by_name() -> None:
    """RecurrentGemma caps its logits under a name of its own."""
    sizes = {**GROUPED, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 32}
    with pytest.raises(ValueError, match="RecurrentGemmaForCausalLM makes its logits in a way"):
        CausalLanguageModel(architecture={"model_type": "recurrent_gemma", **sizes})
