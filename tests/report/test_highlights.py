import pytest

from vlmtrain.report.highlights import Highlight, format_metric, format_percent, highlight


def test_captions_come_first_with_their_yardsticks():
    metrics = {
        "representation": {
            "test/image_to_text_r1": 0.93,
            "test/image_to_text_r1_reranked": 0.95,
            "test/num_candidates": 100.0,
        },
        "language": {
            "test/caption_accuracy": 0.971,
            "test/control_caption_accuracy": 0.004,
            "test/chance_caption_accuracy": 0.003,
            "test/held_out_pairs/caption_accuracy": 0.5,
        },
    }
    assert highlight(metrics) == [
        Highlight("captions right · test", "97.1 %", "with another image 0.4 % · chance 0.3 %"),
        Highlight("image finds its text · test", "93.0 %", "first of 100 · reranked 95.0 %"),
    ]


def test_composed_retrieval_stands_beside_what_needs_no_composing():
    stage = {"test/composed_r1": 0.5, "test/composed_r5": 0.8, "test/chance_composed_r1": 0.001}
    stage |= {"test/image_only_composed_r1": 0.2, "test/text_only_composed_r1": 0.1, "test/added_composed_r1": 0.3}
    notes = "chance 0.1 % · the image alone 20.0 % · the words alone 10.0 % · both added 30.0 %"
    assert highlight({"mapping": stage}) == [Highlight("image and words find the image · test", "50.0 %", notes)]
    assert format_metric("test/image_only_composed_r10", 0.25) == "25.0 %"


def test_classes_are_told_per_split_and_shifts_by_what_they_take():
    metrics = {
        "contrastive": {
            "test/zero_shot_accuracy": 0.5,
            "test/chance_zero_shot_accuracy": 0.02,
            "test/noise/zero_shot_accuracy": 0.4,
            "test/zero_shot_gap": 0.1,
            "test/zero_shot_gap_reduction": 0.75,
        }
    }
    assert highlight(metrics) == [
        Highlight("classes told by their names · test", "50.0 %", "chance 2.0 %"),
        Highlight("lost under shifts, told by names · test", "10.0 %", "closes 75.0 % of what is lost with examples"),
    ]
    assert format_metric("test/zero_shot_gap_reduction", 0.75) == "75.0 %"


def test_a_run_without_such_figures_shows_its_losses():
    metrics = {"text": {"test/loss": 1.5, "test/swapped_loss": 2.25}}
    assert highlight(metrics) == [Highlight("loss · test", "1.500", "with another image 2.250")]
    assert highlight({}) == []


@pytest.mark.parametrize(
    ("share", "told"), [(1.0, "100 %"), (0.9997, "99.9 %"), (0.0, "0.0 %"), (0.954, "95.4 %"), (float("nan"), "NaN")]
)
def test_percentages_claim_no_more_than_is_so(share, told):
    assert format_percent(share) == told


def test_metrics_are_told_by_their_kind():
    assert format_metric("test/control_caption_accuracy", 0.5) == "50.0 %"
    assert format_metric("test/colour/majority_accuracy", 0.25) == "25.0 %"
    assert format_metric("test/text_to_image_r5_reranked", 0.5) == "50.0 %"
    assert format_metric("test/num_captions", 512.0) == "512"
    assert format_metric("test/loss", 0.123456) == "0.1235"
