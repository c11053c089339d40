"""A soft prompt stands before every sample, trains alone, and reaches training and generation alike."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.new_tokens import pretrained_model
from vlmtrain.language_models.soft_prompt import with_soft_prompt
from vlmtrain.layout import Text, Visual
from vlmtrain.layouts.pair import PairLayout
from vlmtrain.nn.adapters import adapter_names
from vlmtrain.training.trainability import set_trainability

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 320}
FAMILIES = {
    "opt": {"model_type": "opt", **SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 320},
    "llama": {"model_type": "llama", **SMALL, "intermediate_size": 64},
    "mamba": {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 320},
}
LENGTH = 5


def make(family: str, tokenizer: str, **choices: object) -> CausalLanguageModel:
    torch.manual_seed(0)
    language_model = CausalLanguageModel(architecture=FAMILIES[family], tokenizer=tokenizer, max_tokens=12).eval()
    return with_soft_prompt(language_model, LENGTH, **choices) if choices is not None else language_model  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_in_front_are_what_the_model_itself_makes_of_them(family: str, byte_tokenizer: str) -> None:
    plain = CausalLanguageModel(architecture=FAMILIES[family], tokenizer=byte_tokenizer, max_tokens=12).eval()
    language_model = make(family, byte_tokenizer)
    plain.load_state_dict(
        {
            name.replace(".base.", "."): value
            for name, value in language_model.state_dict().items()
            if name not in adapter_names(language_model)
        }
    )
    samples = [[Visual(), Text("what?", False), Text(" a red one")], [Text("so", False), Text(" it goes on and on")]]
    ours, theirs = language_model.layout().write(samples, lambda _: 2), plain.layout().write(samples, lambda _: 2)
    assert ours.supervised == theirs.supervised and ours.truncated == theirs.truncated == 1, "it takes no room"
    assert ours.input_ids.shape[1] == theirs.input_ids.shape[1] + LENGTH
    prompt = pretrained_model(language_model).get_input_embeddings().rows
    wanted = torch.cat([prompt.expand(2, -1, -1), plain.embed(theirs.input_ids)], 1)
    torch.testing.assert_close(language_model.embed(ours.input_ids), wanted)
    mask = F.pad(theirs.attention_mask, (LENGTH, 0), value=True)
    made = language_model.logits(language_model.embed(ours.input_ids), ours.attention_mask, ours.targets)
    torch.testing.assert_close(made, plain.logits(wanted, mask, ours.targets), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_reads_it_and_padding_changes_nothing(family: str, byte_tokenizer: str) -> None:
    language_model = make(family, byte_tokenizer)
    with torch.no_grad():
        for parameter in language_model.parameters():
            parameter.mul_(4)
    layout = language_model.layout()

    def said(*texts: str) -> list[list[int]]:
        rows = layout.write_prompts([[Text(text, False)] for text in texts], lambda tiles: 0)
        new = language_model.generate(language_model.embed(rows.input_ids), rows.attention_mask, 6)
        return [layout.tokenizer.convert_ids_to_tokens(row) for row in new.tolist()]

    both = said("a", "what is red")
    for text, together in zip(("a", "what is red"), both, strict=True):
        alone = said(text)[0]
        assert together[: len(alone)] == alone
    with torch.no_grad():
        pretrained_model(language_model).get_input_embeddings().rows.normal_(std=8)
    assert said("a", "what is red") != both


def test_t23_it_trains_alone(byte_tokenizer: str) -> None:
    holder = nn.ModuleDict({"language_model": make("opt", byte_tokenizer)})
    (name,) = set_trainability(holder, {"language_model": None})
    assert name.endswith("rows") and holder.get_parameter(name).shape == (LENGTH, 32)


def test_it_starts_as_text(byte_tokenizer: str) -> None:
    language_model = make("opt", byte_tokenizer, start="ab")
    ids = language_model.layout().tokenizer("ab", add_special_tokens=False).input_ids
    wanted = language_model.embed(torch.tensor([(ids * LENGTH)[:LENGTH]]))[0]
    assert torch.equal(pretrained_model(language_model).get_input_embeddings().rows, wanted)


def test_misuse_is_named(byte_tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="of 0 vectors"):
        with_soft_prompt(CausalLanguageModel(architecture=FAMILIES["opt"]), 0)
    with pytest.raises(ValueError, match="no text"):
        make("opt", byte_tokenizer, start="")
    language_model = CausalLanguageModel(architecture=FAMILIES["opt"], tokenizer=byte_tokenizer)
    tokenizer = language_model.layout().tokenizer
    tokenizer.add_special_tokens({"sep_token": "<s>", "cls_token": "<c>", "pad_token": "<p>"})
    other = PairLayout(tokenizer, 9)
    monkeypatch.setattr(language_model, "layout", lambda: other)
    with pytest.raises(ValueError, match="PairLayout writes no opening"):
        with_soft_prompt(language_model, 2)
