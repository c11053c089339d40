from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmtrain.evaluation.base import Evaluation
from vlmtrain.evaluation.retrieval import Retrieval, count_ahead


def brute_force_ahead(scores: list[float], right: list[bool]) -> int:
    """Wrong candidates that are not strictly worse than the best right one, counted one by one."""
    best = max((s for s, r in zip(scores, right, strict=True) if r and s == s), default=float("-inf"))
    return sum(1 for s, r in zip(scores, right, strict=True) if not r and not s < best)


@given(st.data(), st.integers(1, 6), st.integers(2, 7))
@settings(max_examples=100, deadline=None)
def test_count_ahead_agrees_with_brute_force(data, rows, columns):
    values = st.sampled_from([0.0, 0.5, 1.0, -1.0, float("nan"), float("inf"), float("-inf")])
    scores = data.draw(st.lists(st.lists(values, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    right = [[data.draw(st.booleans()) for _ in range(columns)] for _ in range(rows)]
    for row, flags in enumerate(right):
        flags[row % columns] = True
    expected = [brute_force_ahead(s, r) for s, r in zip(scores, right, strict=True)]
    assert count_ahead(torch.tensor(scores), torch.tensor(right)).tolist() == expected


def test_is_an_evaluation():
    assert isinstance(Retrieval("test"), Evaluation)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 40])
def test_recall_agrees_with_brute_force_whatever_the_batch_size(make_model, make_tools, records_of, batch_size):
    generator = torch.Generator().manual_seed(1)
    images, texts = torch.randn(256, 3, 5, generator=generator), torch.randn(256, 5, generator=generator)
    images[:40, 0] += 0.5 * texts[:40]
    evaluation = Retrieval("test", num_candidates=10, limit=37)
    result = evaluation(make_model(images, texts), {"test": records_of(range(40))}, make_tools(batch_size))
    hits = {1: 0, 5: 0, 10: 0}
    for group in range(3):
        members = range(10 * group, 10 * group + 10)
        for image in members:
            scores = {text: max(float(query @ texts[text]) for query in images[image]) for text in members}
            place = sorted(members, key=lambda text, scores=scores: -scores[text]).index(image)
            for at in hits:
                hits[at] += place < at
    for at, number in hits.items():
        assert result.metrics[f"test/image_to_text_r{at}"] == pytest.approx(number / 30)
    assert result.metrics["test/text_to_image_r10"] == 1.0
    assert result.metrics["test/num_groups"] == 3
    assert result.metrics["test/num_candidates"] == 10


def test_a_perfect_model_finds_everything_and_a_constant_one_nothing(make_model, make_tools, records_of):
    sources = {"test": records_of(range(20))}
    evaluation = Retrieval("test", num_candidates=10)
    assert evaluation(make_model(), sources, make_tools()).metrics["test/image_to_text_r1"] == 1.0
    constant = make_model(torch.ones(256, 1, 4), torch.ones(256, 4))
    assert evaluation(constant, sources, make_tools()).metrics["test/image_to_text_r5"] == 0.0
    broken = make_model(torch.full((256, 1, 4), torch.nan), torch.ones(256, 4))
    assert evaluation(broken, sources, make_tools()).metrics["test/text_to_image_r5"] == 0.0


def test_the_very_same_caption_counts_as_right_too(make_model, make_tools, records_of):
    sources = {"test": records_of([1, 1, 2, 3])}
    result = Retrieval("test", num_candidates=4)(make_model(), sources, make_tools(3))
    assert result.metrics["test/image_to_text_r1"] == 1.0
    assert result.metrics["test/text_to_image_r1"] == 1.0


@pytest.mark.parametrize("low_format", [torch.bfloat16, torch.float16])
def test_scores_are_fp32_under_autocast(make_model, make_tools, records_of, low_format):
    """Texts that are alike to a thousandth stay apart, and the matching head's answers have a place beside them."""
    directions = torch.eye(256)[:1] + 1e-3 * torch.eye(256)
    tools = replace(make_tools(), autocast=lambda: torch.autocast("cpu", low_format))
    evaluation = Retrieval("test", num_candidates=8, rerank=2)
    metrics = evaluation(
        make_model(directions.unsqueeze(1), directions), {"test": records_of(range(1, 9))}, tools
    ).metrics
    assert metrics["test/image_to_text_r1"] == metrics["test/image_to_text_r1_reranked"] == 1.0


def test_reranking_orders_only_the_best_candidates(make_model, make_tools, records_of):
    """The similarity confuses 2k with 2k + 1; the matching head knows better, but only about what it is shown."""
    confused = torch.eye(256)[[number ^ 1 for number in range(256)]] + 0.5 * torch.eye(256)
    model, sources = make_model(confused.unsqueeze(1)), {"test": records_of(range(8))}
    metrics = Retrieval("test", num_candidates=8, rerank=2)(model, sources, make_tools()).metrics
    assert metrics["test/image_to_text_r1"] == 0.0
    assert metrics["test/image_to_text_r1_reranked"] == 1.0
    assert metrics["test/text_to_image_r1_reranked"] == 1.0
    metrics = Retrieval("test", num_candidates=8, rerank=1)(model, sources, make_tools()).metrics
    assert metrics["test/image_to_text_r1_reranked"] == 0.0
    assert metrics["test/image_to_text_r5_reranked"] == 1.0
    model.matching = lambda image, text: float("nan")
    metrics = Retrieval("test", num_candidates=8, rerank=2)(model, sources, make_tools()).metrics
    assert metrics["test/image_to_text_r1_reranked"] == 0.0


def test_too_few_records_are_said_and_measured(make_model, make_tools, records_of, caplog):
    result = Retrieval("test")(make_model(), {"test": records_of(range(6))}, make_tools())
    assert result.metrics["test/num_candidates"] == 6
    assert "only 6 records" in caplog.text
    assert Retrieval()(make_model(), {"test": records_of([1])}, make_tools()).metrics == {}
    assert "fewer than 2" in caplog.text


def test_all_splits_of_the_data_unless_one_is_named(make_model, make_tools, records_of):
    sources = {"test": records_of(range(6)), "held_out": records_of(range(4))}
    metrics = Retrieval(num_candidates=4)(make_model(), sources, make_tools()).metrics
    assert metrics["test/image_to_text_r1"] == metrics["held_out/image_to_text_r1"] == 1.0
    assert Retrieval()(make_model(), {}, make_tools()).metrics == {}


def test_the_check_before_training_finds_what_would_fail_after_it(make_model):
    with pytest.raises(ValueError, match="no evaluation split 'tset'; the data has test"):
        Retrieval("tset").check(make_model(), {"test": []})
    with pytest.raises(ValueError, match="needs a model with"):
        Retrieval("test", rerank=3).check(torch.nn.Linear(1, 1), {"test": []})
    Retrieval("test", rerank=3).check(make_model(), {"test": []})


def test_samples_show_what_was_chosen(make_model, make_tools, records_of):
    result = Retrieval("test", num_candidates=4, num_samples=5)(
        make_model(), {"test": records_of(range(8))}, make_tools()
    )
    assert [sample.text for sample in result.samples] == ["0", "1", "2", "3", "4"]
    assert all(sample.correct for sample in result.samples)


def test_a_model_without_the_capability_is_named(make_tools, records_of):
    with pytest.raises(ValueError, match=r"Retrieval needs a model with .*embed_text.*; Linear has none"):
        Retrieval("test")(torch.nn.Linear(1, 1), {"test": records_of(range(4))}, make_tools())


def test_a_missing_split_is_named(make_model, make_tools):
    with pytest.raises(ValueError, match="no evaluation split 'test'; the data has validation"):
        Retrieval("test")(make_model(), {"validation": []}, make_tools())


def test_the_modes_of_the_modules_come_back(make_model, make_tools, records_of):
    model = make_model().train()
    model.dropout.eval()
    Retrieval("test", num_candidates=4)(model, {"test": records_of(range(4))}, make_tools())
    assert model.training and not model.dropout.training
    assert model.image_table.grad is None
