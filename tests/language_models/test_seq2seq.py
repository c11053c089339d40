"""Encoder-decoders of transformers behind our seam."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.new_tokens import with_new_tokens
from vlmtrain.language_models.seq2seq import Seq2SeqLanguageModel
from vlmtrain.language_models.soft_prompt import with_soft_prompt
from vlmtrain.layout import Part, Text
from vlmtrain.layouts.seq2seq import Seq2SeqLayout
from vlmtrain.nn.adapters import adapter_names
from vlmtrain.nn.lora import with_lora

VOCABULARY = 320
T5 = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
    "decoder_start_token_id": 1,
    "pad_token_id": 1,
    "eos_token_id": 2,
}
FLAN = {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BART = {
    "model_type": "bart",
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
}
FAMILIES = {
    "t5": T5,
    "flan_t5": FLAN,
    "mt5": {**FLAN, "model_type": "mt5"},
    "umt5": {**FLAN, "model_type": "umt5"},
    "bart": BART,
    "bart_scaled": {**BART, "scale_embedding": True},
    "mbart": {**BART, "model_type": "mbart"},
    "pegasus": {**BART, "model_type": "pegasus"},
}


def make(name: str = "t5", tokenizer: str | None = None, louder: float = 1.0) -> Seq2SeqLanguageModel:
    torch.manual_seed(0)
    language_model = Seq2SeqLanguageModel(architecture=FAMILIES[name], tokenizer=tokenizer, max_tokens=60).eval()
    with torch.no_grad():  # random weights so small that nothing would be heard otherwise
        for parameter in language_model.parameters():
            parameter.mul_(louder if parameter.ndim > 1 else 1)
        bias = getattr(language_model.model, "final_logits_bias", None)
        if bias is not None:
            bias.copy_(0.2 * torch.randn(bias.shape, generator=torch.Generator().manual_seed(3)))
    return language_model


def rows(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Seven positions to read, four to write; the second row has five and two."""
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(2, 7, width, generator=generator)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False
    targets = torch.randint(0, VOCABULARY, (2, 4), generator=generator)
    targets[1, 2:] = IGNORED_TARGET
    return embeddings, mask, targets


def difference(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mbart"])
def test_loss_and_gradient_are_those_of_the_models_own_forward_pass(name: str) -> None:
    """mBART shifts labels in a way of its own (their last token comes first); what it reads of them is ours to say."""
    language_model = make(name)
    embeddings, mask, targets = rows(language_model.width)
    embeddings.requires_grad_()
    found = language_model.target_states(embeddings, mask, targets)
    assert len(found.states) == len(found.targets) == 6
    ours = F.cross_entropy(found.head(found.states), found.targets)
    theirs = language_model.model(inputs_embeds=embeddings, attention_mask=mask.long(), labels=targets)
    assert difference(ours, theirs.loss) < 1e-5
    weights = [embeddings, *(value for value in language_model.parameters() if value.requires_grad)]
    pairs = [torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True) for loss in (ours, theirs.loss)]
    assert all((one is None) == (other is None) for one, other in zip(*pairs, strict=True))
    assert max(difference(one, other) for one, other in zip(*pairs, strict=True) if one is not None) < 1e-5
    kept = targets != IGNORED_TARGET
    assert difference(language_model.logits(embeddings, mask, targets)[kept], theirs.logits[kept]) < 1e-5
    assert len(language_model.input_layers) == 2


def test_t5_shrinks_what_a_tied_head_reads_and_flan_t5_does_not() -> None:
    assert make("t5")._shrinks_states and not make("flan_t5")._shrinks_states
    tied, own = make("t5").model, make("flan_t5").model
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    assert own.get_output_embeddings().weight is not own.get_input_embeddings().weight


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_padding_and_later_targets_change_nothing(name: str) -> None:
    language_model = make(name, louder=3)
    embeddings, mask, targets = rows(language_model.width)
    both = language_model.logits(embeddings, mask, targets)
    alone = language_model.logits(embeddings[1:, :5], mask[1:, :5], targets[1:, :2])
    assert difference(both[1:, :2], alone) < 1e-5
    changed = targets.clone()
    changed[0, 2] = (changed[0, 2] + 1) % VOCABULARY
    later = language_model.logits(embeddings, mask, changed)
    assert difference(later[0, :3], both[0, :3]) < 1e-6 < difference(later[0, 3], both[0, 3])


@pytest.mark.parametrize("name", ["t5", "flan_t5", "bart"])
def test_t23_frozen_encoder_decoders_recompute_in_eval_mode_with_the_same_gradient(name: str) -> None:
    gradients, runs = [], []
    for is_on in (False, True):
        language_model = make(name)
        language_model.requires_grad_(False)
        if is_on:
            language_model.enable_gradient_checkpointing()
        embeddings, mask, targets = rows(language_model.width)
        embeddings.requires_grad_()
        calls: list[str] = []
        for which, stack in {
            "reads": language_model.model.get_encoder(),
            "writes": language_model.model.get_decoder(),
        }.items():
            norm = next(module for module in stack.modules() if "Norm" in type(module).__name__ and module is not stack)
            norm.register_forward_pre_hook(lambda *_, calls=calls, which=which: calls.append(which))
        found = language_model.target_states(embeddings, mask, targets)
        F.cross_entropy(found.head(found.states), found.targets).backward()
        gradients.append(embeddings.grad)
        runs.append(sorted(calls))
        assert not any(module.training for module in language_model.modules())
        assert all(parameter.grad is None for parameter in language_model.parameters())
    assert gradients[0] is not None and (gradients[0][mask].abs().amax(-1) > 0).all()
    torch.testing.assert_close(*gradients)
    if name != "bart":  # whose first norm stands before the blocks
        assert runs == [["reads", "writes"], ["reads", "reads", "writes", "writes"]]


@pytest.mark.parametrize("name", ["t5", "flan_t5", "bart"])
def test_cached_generation_of_padded_rows_is_uncached_generation_of_each(byte_tokenizer: str, name: str) -> None:
    language_model = make(name, byte_tokenizer, louder=6)
    layout = language_model.layout()
    assert isinstance(layout, Seq2SeqLayout)
    samples: list[list[Part]] = [[Text("a")], [Text("what is red", supervised=False)], []]
    text = layout.write_prompts(samples, lambda tiles: 0)
    new = language_model.generate(language_model.embed(text.input_ids), text.attention_mask, 6)
    for row in range(3):
        ids = text.input_ids[row][text.attention_mask[row]].unsqueeze(0)
        said = [int(language_model.model.config.decoder_start_token_id)]
        while len(said) < 7 and (len(said) == 1 or said[-1] not in layout.stop_ids):
            decoder_ids = torch.tensor([said])
            logits = language_model.model(input_ids=ids, decoder_input_ids=decoder_ids, use_cache=False).logits
            said.append(int(logits[0, -1].argmax()))
        assert new[row, : len(said) - 1].tolist() == said[1:]
    assert len({tuple(row) for row in new.tolist()}) > 1


@pytest.mark.parametrize("name", ["t5", "flan_t5"])
def test_t5_folders_load_with_the_head_they_were_saved_with(tmp_path: Path, byte_tokenizer: str, name: str) -> None:
    """Flan-T5's head is its own, although the class of T5 says that heads are tied."""
    made = make(name, byte_tokenizer)
    made.model.save_pretrained(tmp_path)
    saved = (tmp_path / "config.json").read_text()
    says = "true" if name == "t5" else "false"  # as the published config files say
    (tmp_path / "config.json").write_text(
        saved.replace('"tie_word_embeddings": true', f'"tie_word_embeddings": {says}')
    )
    made.layout().tokenizer.save_pretrained(tmp_path)
    again = Seq2SeqLanguageModel(str(tmp_path), architecture=FAMILIES[name]).eval()
    embeddings, mask, targets = rows(32)
    assert torch.equal(again.logits(embeddings, mask, targets), made.logits(embeddings, mask, targets))
    with pytest.raises(ValueError, match="d_ff is 64, not 65"):
        Seq2SeqLanguageModel(str(tmp_path), architecture={**FAMILIES[name], "d_ff": 65})
    low = Seq2SeqLanguageModel(str(tmp_path), precision="bf16").eval()
    assert {parameter.dtype for parameter in low.parameters()} == {torch.bfloat16}
    exact = made.logits(embeddings, mask, targets)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert low.target_states(embeddings.bfloat16(), mask, targets).states.dtype == torch.bfloat16
            rough = low.logits(embeddings.bfloat16(), mask, targets).float()
        assert difference(rough, exact) < 0.05 * exact.abs().max()
    text = low.layout().write_prompts([[Text("red")]], lambda tiles: 0)
    assert low.generate(low.embed(text.input_ids), text.attention_mask, 3).shape[0] == 1


def test_paper_sizes_are_counted_on_the_meta_device_without_a_hub() -> None:
    with torch.device("meta"):
        sizes = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "decoder_start_token_id": 0}
        language_model = Seq2SeqLanguageModel("google-t5/t5-base", architecture={"model_type": "t5", **sizes})
    assert sum(parameter.numel() for parameter in language_model.parameters()) == 222_903_552
    with pytest.raises(ValueError, match="tokenizer"):
        language_model.layout()


def test_each_class_names_the_other_where_a_model_is_of_the_other_kind(tmp_path: Path) -> None:
    opt = {"model_type": "opt", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 99}
    with pytest.raises(ValueError, match=r"opt is no encoder-decoder.*CausalLanguageModel"):
        Seq2SeqLanguageModel(architecture=opt)
    for name in ("t5", "bart"):  # of BART transformers would load the decoder alone
        with pytest.raises(ValueError, match=rf"{name} is an encoder-decoder.*Seq2SeqLanguageModel"):
            CausalLanguageModel(architecture=FAMILIES[name])
        make(name).model.save_pretrained(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is an encoder-decoder.*Seq2SeqLanguageModel"):
            CausalLanguageModel(str(tmp_path / name))
        with pytest.raises(ValueError, match=rf"{name} is an encoder-decoder.*Seq2SeqLanguageModel"):
            CausalLanguageModel.from_model(make(name).model, None)
    with pytest.raises(ValueError, match=r"opt is no encoder-decoder.*CausalLanguageModel"):
        Seq2SeqLanguageModel.from_model(CausalLanguageModel(architecture=opt).model, None)


def test_misuse_is_named(byte_tokenizer: str) -> None:
    with pytest.raises(ValueError, match="source"):
        Seq2SeqLanguageModel()
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        Seq2SeqLanguageModel(architecture={**T5, "decoder_start_token_id": None})
    with pytest.raises(ValueError, match="tokens"):
        Seq2SeqLanguageModel(architecture={**T5, "vocab_size": 10}, tokenizer=byte_tokenizer)


@pytest.mark.parametrize("name", ["t5", "flan_t5", "bart"])
def test_new_tokens_and_soft_prompts_train_alone_and_leave_old_tokens_as_they_were(
    byte_tokenizer: str, name: str
) -> None:
    language_model = make(name, byte_tokenizer, louder=3).requires_grad_(False)
    ids, mask = torch.arange(5, 12).unsqueeze(0), torch.ones(1, 7, dtype=torch.bool)
    before = language_model.logits(language_model.embed(ids), mask, ids)
    with_new_tokens(language_model, read=["<image>"], written=["<box>"])
    after = language_model.logits(language_model.embed(ids), mask, ids)
    old = [token for token in range(VOCABULARY) if token != language_model.layout().tokenizer.vocab["<box>"]]
    torch.testing.assert_close(after[..., old], before[..., old])
    text = language_model.layout().write([[Text("<image> what?", False), Text(" red<box>")]], lambda tiles: 0)
    found = language_model.target_states(language_model.embed(text.input_ids), text.attention_mask, text.targets)
    F.cross_entropy(found.head(found.states), found.targets).backward()
    trained = {label for label, parameter in language_model.named_parameters() if parameter.grad is not None}
    assert trained and trained <= adapter_names(language_model)
    again = make(name, byte_tokenizer)
    with_soft_prompt(again, 3)
    prompts = again.layout().write_prompts([[Text("a", False)], [Text("what is red", False)]], lambda tiles: 0)
    assert prompts.input_ids[:, :3].tolist() == [again.layout().opening] * 2
    assert again.generate(again.embed(prompts.input_ids), prompts.attention_mask, 2).shape[0] == 2


def test_lora_begins_as_nothing(byte_tokenizer: str) -> None:
    pytest.importorskip("peft")
    language_model = make("flan_t5", byte_tokenizer).requires_grad_(False)
    embeddings, mask, targets = rows(32)
    before = language_model.logits(embeddings, mask, targets)
    with_lora(language_model)
    assert torch.equal(language_model.logits(embeddings, mask, targets), before)
    assert any("encoder" in name for name in adapter_names(language_model))
    assert any("decoder" in name for name in adapter_names(language_model))


def test_a_head_that_is_not_understood_is_refused() -> None:
    model = make().model
    forward = model.forward

    def shifted(*arguments: object, **options: object) -> object:
        output = forward(*arguments, **options)
        output.logits = output.logits + torch.arange(VOCABULARY)
        return output

    model.forward = shifted
    with pytest.raises(ValueError, match="T5ForConditionalGeneration"):
        Seq2SeqLanguageModel.from_model(model, None)
