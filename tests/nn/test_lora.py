"""LoRA beside layers of language models and encoders: nothing at the start, alone in training, gone when merged."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vlmtrain.encoders.hugging_face import HuggingFaceEncoder
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.nn.adapters import adapter_names
from vlmtrain.nn.lora import merge_lora, with_lora
from vlmtrain.training.files import whole_files
from vlmtrain.training.hand_over import load_part
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
from vlmtrain.training.precision import set_weight_precision
from vlmtrain.training.publish import publish
from vlmtrain.training.state import Progress, TrainingState, trained_tensors, weights_hash
from vlmtrain.training.trainability import set_trainability

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 320}
GROUPED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
FAMILIES = {
    "opt": {"model_type": "opt", **SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.5},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 320},
    "llama": {"model_type": "llama", **GROUPED},
    "gemma2": {"model_type": "gemma2", **GROUPED, "head_dim": 8},
    "mamba": {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 320},
}
MAMBA_LAYERS = ["in_proj", "x_proj"]  # its kernels read the other weights past any adapter


def make(family: str, dora: bool = False, dropout: float = 0.0, adapt: bool = True) -> CausalLanguageModel:
    torch.manual_seed(0)
    language_model = CausalLanguageModel(architecture=FAMILIES[family]).eval()
    if adapt:
        layers = MAMBA_LAYERS if family == "mamba" else "all-linear"
        with_lora(language_model, rank=4, dropout=dropout, target_modules=layers, dora=dora)
    return language_model


def rows(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 6, dtype=torch.bool)
    return torch.randn(2, 6, 32, generator=generator).to(dtype), mask, torch.full((2, 6), 3)


def move(language_model: nn.Module, by: float = 0.05) -> None:
    """What training would do to the adapters."""
    torch.manual_seed(5)
    added = adapter_names(language_model)
    with torch.no_grad():
        for name, parameter in language_model.named_parameters():
            if name in added:
                parameter.add_(by * torch.randn_like(parameter))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_starts_as_the_base_to_the_bit_and_merges_into_it(family: str, dora: bool) -> None:
    base, language_model = make(family, adapt=False), make(family, dora)
    wanted = base.logits(*rows())
    assert torch.equal(language_model.logits(*rows()), wanted)
    move(language_model)
    adapted = language_model.logits(*rows())
    assert (adapted - wanted).abs().max() > 1e-3
    names = {name for name, _ in base.named_parameters()}
    merge_lora(language_model)
    assert {name for name, _ in language_model.named_parameters()} == names and not adapter_names(language_model)
    torch.testing.assert_close(language_model.logits(*rows()), adapted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dora", [False, True])
def test_a_base_in_bf16_has_adapters_in_fp32_and_starts_the_same(dora: bool) -> None:
    base = make("llama", adapt=False).to(torch.bfloat16)
    wanted = base.logits(*rows(torch.bfloat16))
    language_model = with_lora(base, rank=4, dora=dora)
    holder = nn.ModuleDict({"language_model": language_model})
    set_trainability(holder, {"language_model": None})
    set_weight_precision(holder, "bf16")
    added = adapter_names(language_model)
    for name, parameter in language_model.named_parameters():
        assert parameter.dtype == (torch.float32 if name in added else torch.bfloat16), name
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert torch.equal(language_model.logits(*rows(torch.bfloat16)), wanted)
    language_model.target_states(*rows(torch.bfloat16)).states.float().square().sum().backward()
    assert all(parameter.grad is not None for name, parameter in language_model.named_parameters() if name in added)


def test_t23_only_adapters_train_and_only_they_drop_out() -> None:
    language_model = make("opt", dropout=0.5)
    holder = nn.ModuleDict({"language_model": language_model})
    rates = set_trainability(holder, {"language_model": None})
    added = {f"language_model.{name}" for name in adapter_names(language_model)}
    assert rates == dict.fromkeys(rates, 1.0) and set(rates) == added and added
    assert set_trainability(holder, {"language_model": None, "adaptation": 0.1})[min(added)] == 0.1
    assert set_trainability(holder, {"language_model": None, "adaptation": None}) == {}
    assert not any(module.training for module in holder.modules())
    set_trainability(holder, {"language_model": None})
    holder.train()
    modes = {type(module).__name__: module.training for module in language_model.modules()}
    assert modes["OPTForCausalLM"] is False and modes["OPTDecoderLayer"] is False and modes["Dropout"] is True
    assert torch.equal(language_model.logits(*rows()), language_model.logits(*rows())), "B = 0, and OPT drops nothing"
    move(language_model)
    assert not torch.equal(language_model.logits(*rows()), language_model.logits(*rows())), "adapters drop out"
    holder.eval()
    assert torch.equal(language_model.logits(*rows()), language_model.logits(*rows()))
    assert torch.equal(make("opt", adapt=False).logits(*rows()), make("opt").logits(*rows()))


def test_dora_drops_out_too() -> None:
    holder = nn.ModuleDict({"language_model": make("llama", dora=True, dropout=0.5)})
    set_trainability(holder, {"language_model": None})
    holder.train()
    move(holder)
    logits: Callable[[], Tensor] = lambda: holder["language_model"].logits(*rows())  # type: ignore[operator] # noqa: E731
    assert not torch.equal(logits(), logits())
    holder.eval()
    assert torch.equal(logits(), logits())


def trained(steps: int, folder: Path | None = None, resumed: Path | None = None) -> dict[str, Tensor]:
    """The adapters after `steps` of training, from a checkpoint of the first two if there is one."""
    language_model = make("llama", dora=True)
    holder = nn.ModuleDict({"language_model": language_model})
    optimizer = build_optimizer(holder, set_trainability(holder, {"language_model": None}), AdamWChoices())
    state = TrainingState(holder, optimizer)
    start = state.restore(resumed).step if resumed else 0
    before = weights_hash(language_model)
    for step in range(start, steps):
        torch.manual_seed(step)
        optimizer.param_groups[0]["lr"] = 0.01
        loss = language_model.logits(torch.randn(2, 6, 32), *rows()[1:]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if folder and step == 1:
            publish(folder, whole_files(state, Progress(step=2)), {"frozen": state.frozen_parts()})
    assert weights_hash(language_model) == before, "the base is as it was"
    return {name: value.detach() for name, value in holder.named_parameters() if value.requires_grad}


def test_a_checkpoint_holds_adapters_alone_and_training_goes_on_to_the_bit(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    straight = trained(4, tmp_path / "two")
    again = trained(4, resumed=tmp_path / "two")
    assert straight.keys() == again.keys() == load_file(tmp_path / "two/language_model.safetensors").keys()
    assert all(torch.equal(again[name], value) for name, value in straight.items())


def test_other_frozen_weights_under_the_adapters_are_refused(tmp_path: Path) -> None:
    trained(2, tmp_path / "two")
    language_model = make("llama", dora=True)
    with torch.no_grad():
        language_model.model.get_input_embeddings().weight[0, 0] += 1
    holder = nn.ModuleDict({"language_model": language_model})
    optimizer = build_optimizer(holder, set_trainability(holder, {"language_model": None}), AdamWChoices())
    with pytest.raises(ValueError, match="other frozen weights of language_model"):
        TrainingState(holder, optimizer).restore(tmp_path / "two")


def test_weights_have_one_name_and_one_hash_with_and_without_adapters() -> None:
    """So that a stage with adapters starts from what a stage without them learned, and the other way round."""
    plain, adapted = make("opt", adapt=False), make("opt")
    assert weights_hash(plain) == weights_hash(adapted)
    holder = nn.ModuleDict({"language_model": plain})
    set_trainability(holder, {"language_model": 1.0})
    full = trained_tensors(holder)["language_model"].keys()
    holder = nn.ModuleDict({"language_model": adapted})
    set_trainability(holder, {"language_model": 1.0, "adaptation": None})
    assert trained_tensors(holder)["language_model"].keys() == full


@pytest.mark.parametrize("before", ["nothing", "lora", "dora"])
def test_dora_goes_on_as_the_stage_before_it_ended(before: str, tmp_path: Path) -> None:
    """Its lengths are those of the weights that it is given; those that an earlier DoRA learned are kept."""
    earlier = make("llama", dora=before == "dora", adapt=before != "nothing")
    with torch.no_grad():
        for parameter in earlier.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    holder = nn.ModuleDict({"language_model": earlier})
    optimizer = build_optimizer(holder, set_trainability(holder, {"language_model": 1.0}), AdamWChoices())
    state = TrainingState(holder, optimizer)
    publish(tmp_path / "one", whole_files(state, Progress(step=1)), {"frozen": state.frozen_parts()})
    later = make("llama", dora=True)
    trained = {id(parameter) for parameter in later.parameters()}
    report = load_part(tmp_path / "one", "language_model", later)
    torch.testing.assert_close(later.logits(*rows()), earlier.logits(*rows()), atol=1e-5, rtol=0)
    assert {id(parameter) for parameter in later.parameters()} == trained, "the optimizer knows them all"
    assert any("magnitude" in name for name in report.missing) == (before != "dora")


ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "own": lambda: VisionTransformer(16, 8, 24, 2, 4, tap=-1),
    "siglip": lambda: HuggingFaceEncoder(
        architecture={
            "model_type": "siglip_vision_model",
            "hidden_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 40,
            "image_size": 16,
            "patch_size": 8,
        },
        keep_class_token=False,
        tap=-2,
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_take_it_too(name: str) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[name]().eval()
    pixels = torch.rand(2, 3, 16, 16)
    before = encoder.encode_tiles(pixels)  # type: ignore[operator]
    with_lora(encoder, rank=2)
    after = encoder.encode_tiles(pixels)  # type: ignore[operator]
    assert torch.equal(before, after)
    holder = nn.ModuleDict({"encoder": encoder})
    assert set_trainability(holder, {"encoder": None})
    after = encoder.encode_tiles(pixels)  # type: ignore[operator]
    after.square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_attention_that_reads_past_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match="MultiheadAttention"):
        with_lora(nn.Sequential(nn.TransformerEncoderLayer(8, 2)), rank=2)


def test_misuse_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="rank 0"):
        with_lora(make("opt", adapt=False), rank=0)
    with pytest.raises(ValueError, match="no_such_layer"):
        with_lora(make("opt", adapt=False), target_modules=["no_such_layer"])
    with pytest.raises(ValueError, match="out_proj"):
        with_lora(make("mamba", adapt=False), target_modules=["out_proj"])
    with pytest.raises(ValueError, match="no adapters"):
        merge_lora(make("opt", adapt=False))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"pip install 'vlmtrain\[lora\]'"):
        with_lora(make("opt", adapt=False))


def test_it_is_counted_on_the_meta_device() -> None:
    real = make("llama", dora=True)
    with torch.device("meta"):
        shapes = CausalLanguageModel(architecture=FAMILIES["llama"])
        with_lora(shapes, rank=4, dora=True)
    assert {name: value.shape for name, value in shapes.named_parameters()} == {
        name: value.shape for name, value in real.named_parameters()
    }
    assert all(parameter.is_meta for parameter in shapes.parameters())
