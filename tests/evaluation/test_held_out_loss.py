import pytest
import torch

from vlmtrain.evaluation.held_out_loss import HeldOutLoss
from vlmtrain.models.capabilities import Trainable
from vlmtrain.objectives.base import Loss, Objective


class Distance(Objective):
    """Sum over samples of the distance between the image's and the text's number."""

    needs = Trainable

    def weights(self):
        return {"distance": 2.0}

    def counts(self, batch):
        return {"distance": len(batch)}

    def forward(self, model, context):
        images = context.features.patches.flatten().float()
        texts = model.numbers_of_text(context.batch.text).float()
        return Loss({"distance": (images - texts).abs().sum()})


def test_swapped_images_cost_what_they_are_worth(make_model, make_tools, records_of):
    sources = {"test": records_of([0, 10, 20, 30, 40, 50])}
    metrics = HeldOutLoss("test")(make_model(), sources, make_tools(3, Distance())).metrics
    assert metrics["test/distance"] == metrics["test/loss"] == 0.0
    assert metrics["test/swapped_loss"] == pytest.approx(2 * (10 + 10 + 20) / 3)


def test_the_mean_does_not_depend_on_the_batch_size(make_model, make_tools, records_of):
    records = records_of([0, 10, 20, 30, 40])
    records[0] = type(records[0])("odd", bytes([7]), ["0"])
    for batch_size in (1, 2, 5):
        tools = make_tools(batch_size, Distance())
        metrics = HeldOutLoss("test", swapped=False)(make_model(), {"test": records}, tools).metrics
        assert metrics == {"test/distance": pytest.approx(7 / 5), "test/loss": pytest.approx(14 / 5)}


def test_it_asks_for_an_objective_and_for_records(make_model, make_tools, records_of, caplog):
    with pytest.raises(ValueError, match="needs the stage's objective"):
        HeldOutLoss("test")(make_model(), {"test": records_of([1])}, make_tools())
    assert HeldOutLoss()(make_model(), {"test": []}, make_tools(2, Distance())).metrics == {}
    assert "holds no records" in caplog.text
    assert torch.is_grad_enabled()
