"""Language models in four bits: what their rounded weights give, exactly; adapters learn beside them, they do not."""

from pathlib import Path
from shutil import copytree

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn

from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.four_bits import REST
from vlmtrain.language_models.seq2seq import Seq2SeqLanguageModel
from vlmtrain.nn.adapters import adapter_names
from vlmtrain.nn.lora import merge_lora, with_lora
from vlmtrain.training.precision import set_weight_precision
from vlmtrain.training.state import weights_hash
from vlmtrain.training.trainability import set_trainability

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 320}
FAMILIES = {
    "opt": {"model_type": "opt", **SIZES, "ffn_dim": 128, "word_embed_proj_dim": 64},
    "llama": {"model_type": "llama", **SIZES, "intermediate_size": 128, "num_key_value_heads": 2},
}


@pytest.fixture(params=sorted(FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path: Path, byte_tokenizer: str) -> str:
    torch.manual_seed(0)
    CausalLanguageModel(architecture=FAMILIES[request.param]).model.save_pretrained(tmp_path)
    copytree(byte_tokenizer, tmp_path, dirs_exist_ok=True)
    return str(tmp_path)


@pytest.fixture
def quantized(folder: str) -> CausalLanguageModel:
    return CausalLanguageModel(source=folder, precision="nf4").eval()


def rows() -> tuple[Tensor, Tensor, Tensor]:
    embeddings = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(1)).to(REST)
    return embeddings, torch.ones(2, 6, dtype=torch.bool), torch.full((2, 6), 3)


def logits_and_gradient(language_model: CausalLanguageModel) -> tuple[Tensor, Tensor]:
    embeddings, mask, targets = rows()
    embeddings.requires_grad_()
    logits = language_model.logits(embeddings, mask, targets).float()
    logits.square().mean().backward()
    assert embeddings.grad is not None
    return logits.detach(), embeddings.grad


def test_it_is_the_model_of_the_rounded_weights_also_after_an_evaluation(
    quantized: CausalLanguageModel, folder: str
) -> None:
    """On CPUs that know bf16 the library would rewrite the codes in the evaluation, and lose the gradient then."""
    rounded = CausalLanguageModel(source=folder, precision="bf16").eval().requires_grad_(False)
    num_layers = 0
    for ours, theirs in zip(quantized.modules(), rounded.modules(), strict=True):
        if isinstance(ours, Linear4bit) and isinstance(theirs, nn.Linear):
            changed = dequantize_4bit(ours.weight.data, ours.weight.quant_state).to(REST)
            assert not torch.equal(changed, theirs.weight), "four bits must round"
            theirs.weight.data, num_layers = changed, num_layers + 1
    assert num_layers >= 12
    before = weights_hash(quantized)
    with torch.no_grad():
        quantized.logits(*rows())
    assert weights_hash(quantized) == before
    for ours, theirs in zip(logits_and_gradient(quantized), logits_and_gradient(rounded), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_begin_at_nothing_and_learn_beside_it(quantized: CausalLanguageModel, dora: bool) -> None:
    before, codes = quantized.logits(*rows()), weights_hash(quantized)
    model = nn.ModuleDict({"language_model": with_lora(quantized, rank=2, dora=dora)})
    set_trainability(model, {"language_model": None})
    set_weight_precision(model, "bf16")
    torch.testing.assert_close(quantized.logits(*rows()), before, rtol=0, atol=0)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert trained and {name.removeprefix("language_model.") for name in trained} == adapter_names(quantized)
    assert {each.dtype for each in trained.values()} == {torch.float32}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = quantized.logits(*rows()).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
    assert weights_hash(quantized) == codes


def test_codes_do_not_train(quantized: CausalLanguageModel) -> None:
    with pytest.raises(ValueError, match=r"held in codes \(torch.uint8\).*adaptation=lora"):
        set_trainability(nn.ModuleDict({"language_model": quantized}), {"language_model": 1.0})


def test_nothing_is_merged_into_codes(quantized: CausalLanguageModel) -> None:
    with pytest.raises(ValueError, match="round the update away"):
        merge_lora(with_lora(quantized, rank=2))


def test_random_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="give source"):
        CausalLanguageModel(architecture=FAMILIES["opt"], precision="nf4")


def test_it_writes_what_its_logits_say(quantized: CausalLanguageModel) -> None:
    embeddings, mask, _ = rows()
    written = quantized.generate(embeddings, mask, max_new_tokens=1)
    likeliest = quantized.logits(embeddings, mask, torch.full((2, 6), 3))[:, -1].argmax(-1)
    assert quantized.dtype == REST and torch.equal(written[:, 0], likeliest)


def test_encoder_decoders_too(tmp_path: Path, byte_tokenizer: str) -> None:
    sizes = {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_layers": 2, "num_heads": 4, "vocab_size": 320}
    architecture = {"model_type": "t5", **sizes, "decoder_start_token_id": 0}
    torch.manual_seed(0)
    Seq2SeqLanguageModel(architecture=architecture).model.save_pretrained(tmp_path)
    copytree(byte_tokenizer, tmp_path, dirs_exist_ok=True)
    quantized = Seq2SeqLanguageModel(source=str(tmp_path), precision="nf4")
    assert sum(isinstance(module, Linear4bit) for module in quantized.modules()) > 20
    embeddings, mask, targets = rows()
    assert quantized.logits(embeddings, mask, targets).isfinite().all()
