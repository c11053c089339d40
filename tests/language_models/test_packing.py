"""Packing is exact: the losses and gradients of rows of their own, and nobody hears a neighbour."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.packing import with_packing
from vlmtrain.language_models.prefix import PrefixLanguageModel
from vlmtrain.language_models.pretrained import PretrainedLanguageModel
from vlmtrain.language_models.seq2seq import Seq2SeqLanguageModel

VOCABULARY = 320
SPECIAL = {"vocab_size": VOCABULARY, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **SPECIAL}
GROUPED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
DECODERS = {
    "opt": {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, **SPECIAL},
    "llama": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 24},
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0,
      "vocab_size": VOCABULARY, "dropout_rate": 0.0, "pad_token_id": 0, "eos_token_id": 1}  # fmt: skip
UNABLE = {
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, **SPECIAL},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, **SPECIAL},
}
BART = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
        "decoder_start_token_id": 2, "forced_eos_token_id": None, **SPECIAL}  # fmt: skip
MAKERS = {
    **{name: (CausalLanguageModel, {"model_type": name, **fields}) for name, fields in DECODERS.items()},
    "prefix": (PrefixLanguageModel, {"model_type": "llama", **GROUPED}),
    "t5": (Seq2SeqLanguageModel, {"model_type": "t5", **T5}),
}
LENGTHS, ANSWERS = [9, 4, 5, 2, 7, 3], [4, 2, 3, 1, 4, 2]


def make(name: str) -> PretrainedLanguageModel:
    """With weights so large that everything is heard."""
    torch.manual_seed(0)
    kind, architecture = MAKERS[name]
    language_model = kind(architecture=architecture).eval()
    with torch.no_grad():
        for parameter in language_model.parameters():
            parameter.mul_(4.0 if parameter.ndim > 1 else 1.0)
    assert isinstance(language_model, PretrainedLanguageModel)
    return language_model


def samples(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, mask and targets; the last positions of a decoder's sample are its answer."""
    generator = torch.Generator().manual_seed(1)
    places = torch.arange(max(LENGTHS))
    mask = torch.stack([places < length for length in LENGTHS])
    embeddings = torch.randn(len(LENGTHS), max(LENGTHS), 32, generator=generator)
    if name == "t5":
        answer = torch.stack([torch.arange(max(ANSWERS)) < count for count in ANSWERS])
    else:
        answer = torch.stack(
            [(places >= length - count) & (places < length) for length, count in zip(LENGTHS, ANSWERS, strict=True)]
        )
    targets = torch.randint(0, VOCABULARY, answer.shape, generator=generator).masked_fill(~answer, IGNORED_TARGET)
    return embeddings, mask, targets


def loss_and_gradient(name: str, language_model: PretrainedLanguageModel) -> tuple[Tensor, list[Tensor]]:
    embeddings, mask, targets = samples(name)
    embeddings = embeddings.to(language_model.dtype).requires_grad_()
    found = language_model.target_states(embeddings, mask, targets)
    loss = F.cross_entropy(found.head(found.states), found.targets)
    trained = [parameter for parameter in language_model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, [embeddings, *trained], allow_unused=True)
    return loss.detach(), [each for each in gradients if each is not None]


@pytest.mark.parametrize("row_length", [0, 30])
@pytest.mark.parametrize("name", MAKERS)
def test_packed_and_unpacked_have_one_loss_and_one_gradient(name: str, row_length: int) -> None:
    """The loss in fp32 to 1e-6; gradients in fp64 (Gemma norms in fp32 all the same)."""
    plain, packed = make(name), with_packing(make(name), row_length)
    assert isinstance(packed, PretrainedLanguageModel)
    losses = [loss_and_gradient(name, model)[0].item() for model in (plain, packed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    gradients = [loss_and_gradient(name, model.double())[1] for model in (plain, packed)]
    for wanted, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", MAKERS)
def test_rows_are_shared_and_checkpointed_blocks_run_the_same(name: str) -> None:
    language_model = with_packing(make(name))
    assert isinstance(language_model, PretrainedLanguageModel)
    seen = []
    language_model.input_layers[0].register_forward_pre_hook(
        lambda layer, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"]).shape[:2]),
        with_kwargs=True,
    )
    plain = loss_and_gradient(name, language_model.double())
    assert seen == [(4, 9)]  # 30 positions of six samples, in 36 where a row each has 54
    assert language_model.shared_rows is None
    language_model.enable_gradient_checkpointing()
    for wanted, got in zip(plain[1], loss_and_gradient(name, language_model)[1], strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("weights", [torch.float32, torch.float16])
@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_in_fp16_masks_leave_loss_and_gradients_finite(name: str, is_packed: bool, weights: torch.dtype) -> None:
    """A mask of fp32's smallest number is -infinity in fp16, and a row that sees nothing would be NaN."""
    language_model = make(name)
    wanted, _ = loss_and_gradient(name, language_model)
    low = (with_packing(language_model) if is_packed else language_model).to(weights)
    assert isinstance(low, PretrainedLanguageModel)
    with torch.autocast("cpu", torch.float16):
        loss, gradients = loss_and_gradient(name, low)
    assert loss.item() == pytest.approx(wanted.item(), rel=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", MAKERS)
def test_no_sample_hears_another(name: str) -> None:
    language_model = with_packing(make(name), 40)
    embeddings, mask, targets = samples(name)
    for listener in range(len(LENGTHS)):
        heard = embeddings.clone().requires_grad_()
        states = language_model.states(heard, mask, targets)  # type: ignore[operator]
        states[listener].pow(2).sum().backward()
        assert heard.grad is not None
        loud = heard.grad.abs().sum(dim=(1, 2))
        assert loud[listener] > 0
        assert (loud[torch.arange(len(LENGTHS)) != listener] == 0).all()


@pytest.mark.parametrize("name", UNABLE)
def test_what_would_hear_a_neighbour_is_refused(name: str) -> None:
    language_model = CausalLanguageModel(architecture={"model_type": name, **UNABLE[name]})
    with pytest.raises(ValueError, match=r"cannot have samples share a row: .*model/packing=none"):
        with_packing(language_model)
    assert language_model.shared_rows is None and loss_and_gradient("opt", language_model)


def test_positions_that_nobody_can_tell_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Bart.* cannot have samples share a row: states are off by"):
        with_packing(Seq2SeqLanguageModel(architecture={"model_type": "bart", **BART}))


def test_rows_of_less_than_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row_length=-1"):
        with_packing(make("opt"), -1)


def test_samples_longer_than_a_sliding_window_are_refused() -> None:
    fields = {"model_type": "gemma2", **GROUPED, "head_dim": 8, "sliding_window": 8}
    language_model = with_packing(CausalLanguageModel(architecture=fields))
    with pytest.raises(ValueError, match=r"9 positions does not fit the sliding window of 8"):
        loss_and_gradient("gemma2", language_model)  # type: ignore[arg-type]
