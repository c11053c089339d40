"""Weighted tokens: by the length of their sample and by their source, alike however the batch is cut."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.batch import IGNORED_TARGET, Batch, TextBatch, VisualBatch
from vlmtrain.config.build import build
from vlmtrain.data.collate import Collator
from vlmtrain.data.loading import prepare
from vlmtrain.data.record import Record
from vlmtrain.data.sources.weighted import Weighted
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.layout import Text
from vlmtrain.models.text_only import TextOnly
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.language_modeling import LanguageModeling
from vlmtrain.objectives.token_weights import (
    EqualTokens,
    InverseLength,
    total_weight,
    weights_of_samples,
    weights_of_targets,
)

TERM = LanguageModeling.term


def batch_of_lengths(lengths: list[int], weights: list[float]) -> Batch:
    longest = max([*lengths, 1])
    targets = torch.tensor([[7] * length + [IGNORED_TARGET] * (longest - length) for length in lengths])
    text = TextBatch(
        targets, targets > 0, targets < -200, targets, supervised=sum(lengths), supervised_per_sample=lengths
    )
    return Batch(VisualBatch(torch.empty(0, 3, 1, 1), [], [0] * len(lengths)), text, weights=weights)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.floats(0, 1), st.booleans(), st.randoms())
@settings(deadline=None, max_examples=60)
def test_python_knows_the_sum_of_what_the_device_gets(lengths, power, with_sources, random) -> None:
    weights = [random.choice([1.0, 0.2, 0.03]) for _ in lengths] if with_sources else []
    batch = batch_of_lengths(lengths, weights)
    spread = weights_of_targets(batch, InverseLength(power))
    assert spread.shape == (sum(lengths),)
    assert total_weight(batch, InverseLength(power)) == pytest.approx(float(spread.double().sum()), rel=1e-6)
    each = weights_of_samples(batch, EqualTokens())
    assert [weight > 0 for weight in each] == [length > 0 for length in lengths]


def test_powers_are_tokens_square_roots_and_samples() -> None:
    batch = batch_of_lengths([4, 0, 1], [])
    assert weights_of_samples(batch, InverseLength(0)) == [1, 0, 1] == weights_of_samples(batch, EqualTokens())
    assert weights_of_samples(batch, InverseLength()) == [0.5, 0, 1]
    assert total_weight(batch, InverseLength(1)) == 2, "every sample counts alike"
    assert weights_of_samples(replace(batch, weights=[0.2, 1, 0.03]), InverseLength()) == [0.1, 0, 0.03]


@pytest.mark.parametrize("size", [1, 3, 6])
@pytest.mark.parametrize("weighting", [None, InverseLength(), InverseLength(1)])
def test_micro_batches_add_up_to_the_whole(make_model, batch_of, step_of, weighting, size) -> None:
    model = make_model()
    batch = replace(batch_of(12), weights=[1.0, 0.2, 0.2, 0.03] * 3)
    objective = LanguageModeling(weighting=weighting)
    whole, cut = step_of(model, objective, batch), step_of(model, objective, batch, size)
    count = objective.counts(batch)[TERM]
    torch.testing.assert_close(cut.totals[TERM] / count, whole.totals[TERM] / count, atol=1e-6, rtol=0)
    assert whole.gradients.keys() == cut.gradients.keys()
    for name, gradient in whole.gradients.items():
        torch.testing.assert_close(cut.gradients[name], gradient, atol=1e-5, rtol=0)


SAMPLES = [[Text("ask ", False), Text("a")], [Text("a long answer it is")], [Text("so", False), Text(" so")]]


def model_and_batch(tokenizer: str) -> tuple[TextOnly, Batch]:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 320}
    architecture = {"model_type": "opt", **sizes, "ffn_dim": 64, "word_embed_proj_dim": 32}
    model = TextOnly(CausalLanguageModel(architecture=architecture, tokenizer=tokenizer)).eval()
    records = [Record(str(index), [], ["x"], weight=weight) for index, weight in enumerate([1.0, 0.2, 0.5])]
    prepared = [prepare(record, parts, None, None) for record, parts in zip(records, SAMPLES, strict=True)]  # type: ignore[arg-type]
    return model, Collator(model.layout(), lambda tiles: 0)(prepared)


@pytest.mark.parametrize("weighting", [None, InverseLength()])
def test_it_is_the_weighted_mean_of_each_samples_own_loss(byte_tokenizer: str, weighting) -> None:
    model, batch = model_and_batch(byte_tokenizer)
    assert batch.weights == [1.0, 0.2, 0.5]
    objective = LanguageModeling(weighting=weighting)
    features = model.encode(batch.visual)
    loss = objective(model, Context(features, batch)).totals[TERM] / objective.counts(batch)[TERM]
    sums, weights = torch.tensor(0.0), 0.0
    for parts, source in zip(SAMPLES, batch.weights, strict=True):
        text = model.layout().write([parts], lambda tiles: 0)
        logits = model.language_model.logits(
            model.language_model.embed(text.input_ids), text.attention_mask, text.targets
        )
        each = F.cross_entropy(logits[0], text.targets[0], ignore_index=IGNORED_TARGET, reduction="sum")
        weight = source * (1.0 if weighting is None else text.supervised**-0.5)
        sums, weights = sums + weight * each, weights + weight * text.supervised
    torch.testing.assert_close(loss, sums / weights, atol=1e-5, rtol=0)


def test_without_weights_nothing_is_weighed(byte_tokenizer: str) -> None:
    model, batch = model_and_batch(byte_tokenizer)
    plain = replace(batch, weights=[])
    assert LanguageModeling().counts(plain) == {TERM: batch.text.supervised}
    equal = LanguageModeling(weighting=EqualTokens())
    features = model.encode(batch.visual)
    made = [objective(model, Context(features, plain)).totals[TERM] for objective in (LanguageModeling(), equal)]
    torch.testing.assert_close(*made, atol=1e-5, rtol=0)


def test_sources_give_their_weight_to_their_records() -> None:
    class One:
        name, fingerprint = "one", "f"

        def __len__(self) -> int:
            return 1

        def key(self, index: int) -> str:
            return "k"

        def read(self, index: int) -> Record:
            return Record("k", [], ["x"], weight=0.5)

    source = Weighted(One(), 0.2)
    assert source.read(0).weight == 0.1 and (source.name, source.fingerprint, len(source), source.key(0))
    with pytest.raises(ValueError, match="weight 0"):
        Weighted(One(), 0)


def test_misuse_is_named() -> None:
    batch = batch_of_lengths([3, 2], [])
    unknown = replace(batch, text=replace(batch.text, supervised_per_sample=[]))
    with pytest.raises(ValueError, match="supervised_per_sample"):
        LanguageModeling(weighting=InverseLength()).counts(unknown)
    with pytest.raises(ValueError, match="3 samples"):
        LanguageModeling().counts(replace(batch, weights=[1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="power is 2"):
        InverseLength(2)


def test_a_config_file_names_it() -> None:
    name = "vlmtrain.objectives.language_modeling.LanguageModeling"
    weighting = {"_target_": "vlmtrain.objectives.token_weights.InverseLength", "power": 0.5}
    assert build({"_target_": name, "weighting": weighting}).weighting.power == 0.5
