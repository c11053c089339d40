"""Causal language models of transformers behind our seam."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.layout import Text
from vlmtrain.nn.linear_cross_entropy import linear_cross_entropy

VOCABULARY = 320
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY}
GROUPED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
OPT = {"model_type": "opt", **SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
FAMILIES = [
    OPT,
    {**OPT, "word_embed_proj_dim": 16},
    {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY},
    {"model_type": "llama", **GROUPED},
    {"model_type": "qwen3", **GROUPED, "head_dim": 8},
    {"model_type": "gemma2", **GROUPED, "head_dim": 8, "final_logit_softcapping": 0.5},
    {"model_type": "cohere", **GROUPED, "logit_scale": 0.3},
    {"model_type": "granite", **GROUPED, "logits_scaling": 3.0},
    {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": VOCABULARY},
]
NAMES = ["opt", "opt_project_out", "gpt2", "llama", "qwen3", "gemma2", "cohere", "granite", "mamba"]


def make(architecture: dict[str, object] = OPT, tokenizer: str | None = None) -> CausalLanguageModel:
    torch.manual_seed(0)
    return CausalLanguageModel(architecture=architecture, tokenizer=tokenizer).eval()


def rows(width: int, batch: int = 2, length: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(batch, length, width, generator=generator)
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[1, 5:] = False
    targets = torch.randint(0, VOCABULARY, (batch, length), generator=generator)
    targets[:, :3] = IGNORED_TARGET
    targets[1, 4:] = IGNORED_TARGET
    return embeddings, mask, targets


@pytest.mark.parametrize("architecture", FAMILIES, ids=NAMES)
def test_a_frozen_head_that_is_a_plain_layer_keeps_no_logits(architecture: dict[str, object]) -> None:
    """linear_cross_entropy asks for an nn.Linear; soft caps and scales make the head more than that."""
    language_model = make(architecture).requires_grad_(False)
    embeddings, mask, targets = rows(language_model.width)
    found = language_model.target_states(embeddings.requires_grad_(), mask, targets)
    assert isinstance(found.head, nn.Linear) == (architecture["model_type"] not in ("gemma2", "cohere", "granite"))
    ours, theirs = (
        linear_cross_entropy(found),
        F.cross_entropy(found.head(found.states), found.targets, reduction="sum"),
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    pair = [torch.autograd.grad(loss, embeddings, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*pair, atol=1e-6, rtol=0)


@pytest.mark.parametrize("architecture", FAMILIES, ids=NAMES)
def test_weights_in_bf16_give_states_that_the_head_takes(architecture: dict[str, object]) -> None:
    language_model = CausalLanguageModel(architecture=architecture, precision="bf16").eval()
    embeddings, mask, targets = rows(language_model.width)
    found = language_model.target_states(embeddings.bfloat16(), mask, targets)
    assert found.head(found.states).isfinite().all() and found.states.dtype == torch.bfloat16


@pytest.mark.parametrize("architecture", FAMILIES, ids=NAMES)
def test_supervised_states_and_head_give_the_models_own_loss_and_gradient(architecture: dict[str, object]) -> None:
    language_model = make(architecture)
    embeddings, mask, targets = rows(language_model.width)
    embeddings.requires_grad_()
    found = language_model.target_states(embeddings, mask, targets)
    assert len(found.states) == len(found.targets) == 5
    ours = F.cross_entropy(found.head(found.states), found.targets)
    logits = language_model.model(inputs_embeds=embeddings, attention_mask=mask.long()).logits
    theirs = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED_TARGET)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    pair = [torch.autograd.grad(loss, embeddings, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*pair, atol=1e-5, rtol=0)
    torch.testing.assert_close(language_model.logits(embeddings, mask, targets)[mask], logits[mask], atol=1e-5, rtol=0)
    assert len(language_model.input_layers) == 2


@pytest.mark.parametrize("architecture", FAMILIES, ids=NAMES)
def test_t23_frozen_models_recompute_in_eval_mode_with_the_same_gradient(architecture: dict[str, object]) -> None:
    gradients, runs = [], []
    for is_on in (False, True):
        language_model = make({**architecture, "dropout": 0.5, "attention_dropout": 0.5, "hidden_dropout": 0.5})
        language_model.requires_grad_(False)
        if is_on:
            language_model.enable_gradient_checkpointing()
        embeddings, mask, targets = rows(language_model.width)
        calls: list[int] = []
        next(language_model.input_layers[0].children()).register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        embeddings.requires_grad_()
        found = language_model.target_states(embeddings, mask, targets)
        F.cross_entropy(found.head(found.states), found.targets).backward()
        gradients.append(embeddings.grad)
        runs.append(len(calls))
        assert not any(module.training for module in language_model.modules())
        assert all(parameter.grad is None for parameter in language_model.parameters())
        assert "forward" not in vars(language_model.input_layers[0])
    assert runs == [1, 2]
    torch.testing.assert_close(*gradients)


def test_a_head_that_is_not_understood_is_refused() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**OPT))
    model.get_output_embeddings().register_forward_hook(lambda module, arguments, output: output)
    CausalLanguageModel.from_model(model, None)
    forward = model.forward

    def shifted(*arguments: object, **options: object) -> object:
        output = forward(*arguments, **options)
        output.logits = output.logits + torch.arange(VOCABULARY)
        return output

    model.forward = shifted
    with pytest.raises(ValueError, match="OPTForCausalLM"):
        CausalLanguageModel.from_model(model, None)


@pytest.mark.parametrize("weights", [torch.float32, torch.float16])
@pytest.mark.parametrize("architecture", FAMILIES, ids=NAMES)
def test_in_fp16_padding_on_the_left_is_not_heard(architecture: dict[str, object], weights: torch.dtype) -> None:
    """As where texts are written: its positions see nothing, and must not be NaN in the values of others."""
    language_model = make(architecture)
    embeddings, mask, _ = rows(language_model.width)
    mask = mask.flip(1)
    exact = language_model.model(inputs_embeds=embeddings, attention_mask=mask.long()).logits
    low = language_model.to(weights).model
    with torch.autocast("cpu", torch.float16, enabled=weights == torch.float32):
        rough = low(inputs_embeds=embeddings.to(weights), attention_mask=mask.long()).logits
    assert (rough.float() - exact)[mask].abs().max() < 0.02 * exact.abs().max()


def test_generation_is_greedy_and_stops_at_the_terminator(byte_tokenizer: str) -> None:
    language_model = make(tokenizer=byte_tokenizer)
    with torch.no_grad():
        for parameter in language_model.parameters():
            parameter.mul_(6)
    layout = language_model.layout()
    text = layout.write_prompts([[Text("a")], [Text("what is red")]], lambda tiles: 0)
    new = language_model.generate(language_model.embed(text.input_ids), text.attention_mask, 6)
    for row in range(2):  # each alone, without cache and padding
        ids = text.input_ids[row][text.attention_mask[row]].unsqueeze(0)
        said: list[int] = []
        for _ in range(6):
            logits = language_model.model(input_ids=ids, use_cache=False).logits[0, -1]
            said.append(int(logits.argmax()))
            ids = torch.cat([ids, torch.tensor([said[-1:]])], 1)
            if said[-1] in layout.stop_ids:
                break
        assert new[row, : len(said)].tolist() == said
    terminator = layout.terminator_id
    bias = torch.zeros(VOCABULARY)
    bias[terminator] = 1e4
    language_model.model.get_output_embeddings().register_forward_hook(lambda *call: call[-1] + bias)
    assert (
        language_model.generate(language_model.embed(text.input_ids), text.attention_mask, 6).tolist()
        == [[terminator]] * 2
    )


def test_folders_load_with_their_tokenizer_and_architecture_is_held_against_them(
    tmp_path: Path, byte_tokenizer: str
) -> None:
    made = make(tokenizer=byte_tokenizer)
    made.model.save_pretrained(tmp_path)
    made.layout().tokenizer.save_pretrained(tmp_path)
    again = CausalLanguageModel(str(tmp_path), architecture=OPT).eval()
    embeddings, mask, targets = rows(32)
    assert torch.equal(again.logits(embeddings, mask, targets), made.logits(embeddings, mask, targets))
    assert again.source == str(tmp_path) and again.layout().read([again.layout().pad_id]) == ""
    with pytest.raises(ValueError, match="ffn_dim is 64, not 65"):
        CausalLanguageModel(str(tmp_path), architecture={**OPT, "ffn_dim": 65})
    low = CausalLanguageModel(str(tmp_path), precision="bf16")
    assert {parameter.dtype for parameter in low.parameters()} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        assert low.target_states(embeddings.bfloat16(), mask, targets).states.dtype == torch.bfloat16


def test_paper_sizes_are_counted_on_the_meta_device_without_a_hub() -> None:
    sizes = {
        "hidden_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "ffn_dim": 10240,
        "vocab_size": 50272,
    }
    with torch.device("meta"):
        language_model = CausalLanguageModel(
            "facebook/opt-2.7b", architecture={"model_type": "opt", "word_embed_proj_dim": 2560, **sizes}
        )
    assert sum(parameter.numel() for parameter in language_model.parameters()) == 2_651_596_800
    with pytest.raises(ValueError, match="tokenizer"):
        language_model.layout()


def test_misuse_is_named(tmp_path: Path, byte_tokenizer: str) -> None:
    with pytest.raises(ValueError, match="source"):
        CausalLanguageModel()
    with pytest.raises(ValueError, match="model_type"):
        CausalLanguageModel(architecture={"hidden_size": 3})
    with pytest.raises(ValueError, match="no such folder"):
        CausalLanguageModel(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match="tokens"):
        make({**OPT, "vocab_size": 10}, byte_tokenizer)


def test_residual_blocks_must_be_unambiguous() -> None:
    from vlmtrain.nn.residual_blocks import residual_blocks

    def stack() -> nn.ModuleList:
        return nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    with pytest.raises(ValueError, match="2 module lists"):
        residual_blocks(nn.ModuleDict({"a": stack(), "b": stack()}))
