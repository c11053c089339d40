"""Tokens added to a frozen language model: only their rows train, and old tokens are as they were."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.in_turn import adapt_in_turn
from vlmtrain.language_models.new_tokens import ExtendedEmbedding, pretrained_model, with_new_tokens
from vlmtrain.language_models.seq2seq import Seq2SeqLanguageModel
from vlmtrain.layout import Text, Visual
from vlmtrain.nn.lora import with_lora
from vlmtrain.training.files import whole_files
from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
from vlmtrain.training.publish import publish
from vlmtrain.training.state import Progress, TrainingState, weights_hash
from vlmtrain.training.trainability import set_trainability

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 320}
GROUPED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
FAMILIES = {
    "opt": {"model_type": "opt", **SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "opt_project_out": {"model_type": "opt", **SMALL, "ffn_dim": 64, "word_embed_proj_dim": 16},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 320},
    "llama": {"model_type": "llama", **GROUPED},
    "phi": {"model_type": "phi", **GROUPED, "num_key_value_heads": 4},  # a head with bias
    "gemma2": {"model_type": "gemma2", **GROUPED, "head_dim": 8, "final_logit_softcapping": 0.5},
    "gemma3": {"model_type": "gemma3_text", **GROUPED, "head_dim": 8},  # scales what it embeds
    "mamba": {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 320},
}
T5 = {"model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 320,
      "decoder_start_token_id": 1, "pad_token_id": 1, "eos_token_id": 2}  # fmt: skip
NEW = {"read": ["<image>"], "written": ["<box>", "</box>"]}


def make(family: str, tokenizer: str, adapt: bool = True) -> CausalLanguageModel:
    torch.manual_seed(0)
    language_model = CausalLanguageModel(architecture=FAMILIES[family], tokenizer=tokenizer).eval()
    return with_new_tokens(language_model, **NEW) if adapt else language_model  # type: ignore[return-value]


def ids_of(language_model: CausalLanguageModel, *tokens: str) -> list[int]:
    return language_model.layout().tokenizer.convert_tokens_to_ids(list(tokens))


def logits(language_model: CausalLanguageModel, ids: Tensor) -> Tensor:
    return language_model.logits(language_model.embed(ids), torch.ones_like(ids, dtype=torch.bool), ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_old_tokens_are_as_they_were_to_the_bit(family: str, byte_tokenizer: str) -> None:
    before, after = make(family, byte_tokenizer, adapt=False), make(family, byte_tokenizer)
    first = len(before.layout().tokenizer)
    ids = torch.arange(first)[None, :40]
    assert torch.equal(before.embed(ids), after.embed(ids))
    assert torch.equal(logits(before, ids)[..., :first], logits(after, ids)[..., :first])
    assert weights_hash(before) == weights_hash(after)
    assert ids_of(after, "<box>", "</box>", "<image>") == [first, first + 1, first + 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_token_with_the_row_of_an_old_one_is_that_one(family: str, byte_tokenizer: str) -> None:
    """Scales, biases, caps, tied and untied heads alike."""
    language_model = make(family, byte_tokenizer)
    model = pretrained_model(language_model)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    old, new = 9, ids_of(language_model, "<box>")[0]
    with torch.no_grad():
        embedding.rows[0] = embedding.weight[old]
        head.rows[0] = head.weight[old]
        if head.row_bias is not None:
            head.base.bias[old] = head.row_bias[0] = 0.3
    ids = torch.tensor([[5, old, 7], [5, new, 7]])
    made = logits(language_model, ids)
    torch.testing.assert_close(made[0], made[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(made[..., old], made[..., new], atol=1e-6, rtol=0)


def test_heads_and_embeddings_that_are_one_stay_one(byte_tokenizer: str) -> None:
    tied = pretrained_model(make("opt", byte_tokenizer))
    untied = pretrained_model(make("llama", byte_tokenizer))
    assert tied.get_output_embeddings().rows is tied.get_input_embeddings().rows
    assert untied.get_output_embeddings().rows is not untied.get_input_embeddings().rows


@pytest.mark.parametrize("family", ["opt", "llama", "phi"])
def test_t23_only_new_rows_train_and_are_saved(family: str, byte_tokenizer: str, tmp_path: Path) -> None:
    language_model = make(family, byte_tokenizer)
    holder = nn.ModuleDict({"language_model": language_model})
    rates = set_trainability(holder, {"language_model": None})
    assert {name.rsplit(".", 1)[1] for name in rates} <= {"rows", "row_bias"} and rates
    optimizer = build_optimizer(holder, rates, AdamWChoices())
    state, before = TrainingState(holder, optimizer), weights_hash(language_model)
    text = language_model.layout().write([[Text("see <image> at", False), Text(" <box>3</box>")]], lambda tiles: 1)
    losses = []
    for _ in range(8):
        found = language_model.target_states(language_model.embed(text.input_ids), text.attention_mask, text.targets)
        loss = F.cross_entropy(found.head(found.states), found.targets)
        optimizer.param_groups[0]["lr"] = 0.05
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05 and weights_hash(language_model) == before
    publish(tmp_path / "one", whole_files(state, Progress(step=8)), {"frozen": state.frozen_parts()})
    other = nn.ModuleDict({"language_model": make(family, byte_tokenizer)})
    again = build_optimizer(other, set_trainability(other, {"language_model": None}), AdamWChoices())
    TrainingState(other, again).restore(tmp_path / "one")
    ids = text.input_ids
    assert torch.equal(logits(other["language_model"], ids), logits(language_model, ids))  # type: ignore[arg-type]


def test_rows_have_a_gradient_also_where_no_new_token_is(byte_tokenizer: str) -> None:
    language_model = make("llama", byte_tokenizer)
    language_model.embed(torch.tensor([[5, 6]])).sum().backward()
    gradient = pretrained_model(language_model).get_input_embeddings().rows.grad
    assert gradient is not None and (gradient == 0).all()


def test_what_is_written_can_be_read_and_what_is_only_read_is_never_written(byte_tokenizer: str) -> None:
    language_model = make("opt", byte_tokenizer)
    box, end, image = ids_of(language_model, "<box>", "</box>", "<image>")
    assert logits(language_model, torch.tensor([[5]])).shape[-1] == 320  # columns that no token had
    layout = language_model.layout()
    assert layout.read([box, *layout.tokenizer("3", add_special_tokens=False).input_ids, end]) == "<box>3</box>"
    assert "<image>" not in layout.read([image])
    ids = layout.write_prompts([[Text("go", False)]], lambda tiles: 0)
    head = pretrained_model(language_model).get_output_embeddings()
    head.rows = nn.Parameter(torch.zeros_like(head.rows))
    head.register_forward_hook(lambda *call: call[-1].index_fill(-1, torch.tensor([box]), 1e4))
    new = language_model.generate(language_model.embed(ids.input_ids), ids.attention_mask, 3)
    assert new.tolist() == [[box] * 3], "generation embeds what it has written"


def test_openflamingo_a_new_token_ends_every_text(byte_tokenizer: str) -> None:
    """Each text of a document is learned with it, writing stops there, and what stands between images is no more."""
    language_model = make("opt", byte_tokenizer, adapt=False)
    with_new_tokens(language_model, written=["<|endofchunk|>"], ends_answers="<|endofchunk|>")
    layout, end = language_model.layout(), ids_of(language_model, "<|endofchunk|>")[0]
    text = layout.write([[Visual(), Text("a cat"), Visual(), Text("a dog")]], lambda tiles: 1)
    assert text.targets is not None and (text.targets == end).sum() == (text.input_ids == end).sum() == 2
    prompt = layout.write_prompts([[Visual(), Text("a cat"), Visual()]], lambda tiles: 1)
    assert (prompt.input_ids == end).sum() == 1
    words = layout.tokenizer("a cat", add_special_tokens=False).input_ids
    assert layout.read([*words, end, *words]) == "a cat"
    head = pretrained_model(language_model).get_output_embeddings()
    head.register_forward_hook(lambda *call: call[-1].index_fill(-1, torch.tensor([end]), 1e4))
    new = language_model.generate(language_model.embed(prompt.input_ids), prompt.attention_mask, 5)
    assert new.tolist() == [[end]]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 14), min_size=1, max_size=12), st.integers(0, 12), st.integers(1, 4))
def test_every_id_has_the_row_of_its_own(ids: list[int], first: int, num_tokens: int) -> None:
    torch.manual_seed(0)
    embedding = ExtendedEmbedding(nn.Embedding(15, 3), first, num_tokens)
    made = embedding(torch.tensor(ids))
    for row, index in zip(made, ids, strict=True):
        is_new = first <= index < first + num_tokens
        assert torch.equal(row, embedding.rows[index - first] if is_new else embedding.weight[index])


def test_with_adapters_too(byte_tokenizer: str) -> None:
    language_model = make("llama", byte_tokenizer, adapt=False)
    adapt_in_turn(language_model, [lambda each: with_lora(each, 2), lambda each: with_new_tokens(each, ["<image>"])])
    names = set_trainability(nn.ModuleDict({"language_model": language_model}), {"language_model": None})
    assert any("lora_A" in name for name in names) and any(name.endswith("rows") for name in names)
    assert not any("lm_head" in name for name in names)


def test_misuse_is_named(byte_tokenizer: str) -> None:
    known = make("opt", byte_tokenizer, adapt=False)
    word = known.layout().tokenizer.convert_ids_to_tokens(7)
    for tokens, told in (([word], "already .id 7"), ([], "No new tokens"), (["<a>", "<a>"], "twice"), ([""], "empty")):
        with pytest.raises(ValueError, match=told):
            with_new_tokens(known, read=tokens)
    with pytest.raises(ValueError, match="ends_answers='<b>' must be among the written tokens: <a>"):
        with_new_tokens(known, written=["<a>"], ends_answers="<b>")
    with pytest.raises(ValueError, match="have an end of their own"):
        with_new_tokens(Seq2SeqLanguageModel(architecture=T5, tokenizer=byte_tokenizer), None, ["<a>"], "<a>")
    with pytest.raises(ValueError, match="in one adaptation"):
        with_new_tokens(make("opt", byte_tokenizer), read=["<more>"])


def test_it_is_counted_on_the_meta_device() -> None:
    with torch.device("meta"):
        language_model = with_new_tokens(CausalLanguageModel(architecture=FAMILIES["llama"]), **NEW)
    rows = [value for name, value in language_model.named_parameters() if name.endswith("rows")]
    assert [tuple(value.shape) for value in rows] == [(3, 32), (2, 32)] and all(value.is_meta for value in rows)
