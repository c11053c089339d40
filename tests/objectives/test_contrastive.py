import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmtrain.objectives.base import Context
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.similarity import similarity


class Given(nn.Module):
    """A model whose embeddings are given."""

    def __init__(self, images: Tensor, texts: Tensor, scale: float = 1.0) -> None:
        super().__init__()
        self.images, self.texts, self.scale = images, texts, torch.tensor(scale)

    def embed_visual(self, visual):
        return F.normalize(self.images, dim=-1)

    def embed_text(self, text):
        return F.normalize(self.texts, dim=-1)

    def similarity_scale(self):
        return self.scale


def mean_loss(batch, images, texts, scale=1.0, smoothing=0.0) -> Tensor:
    objective = Contrastive(label_smoothing=smoothing)
    loss = objective(Given(images, texts, scale), Context(None, batch))
    return loss.totals["contrastive"] / objective.counts(batch)["contrastive"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_t13_is_the_symmetric_two_term_loss_over_cosines(batch_of, smoothing):
    torch.manual_seed(0)
    images, texts, pair = torch.randn(7, 1, 5), torch.randn(7, 5), torch.arange(7)
    cosines = torch.stack([torch.stack([F.cosine_similarity(i, t, dim=0) for t in texts]) for i in images[:, 0]])
    logits = 14.0 * cosines
    wanted = (
        F.cross_entropy(logits, pair, label_smoothing=smoothing)
        + F.cross_entropy(logits.T, pair, label_smoothing=smoothing)
    ) / 2
    batch = batch_of(7)
    torch.testing.assert_close(mean_loss(batch, images, texts, 14.0, smoothing), wanted)
    swapped = mean_loss(batch, texts.unsqueeze(1), images.squeeze(1), 14.0, smoothing)
    torch.testing.assert_close(swapped, wanted)
    torch.testing.assert_close(mean_loss(batch, 3.0 * images, 0.2 * texts, 14.0, smoothing), wanted)


def test_t13_random_is_log_b_and_matched_orthogonal_goes_to_zero(batch_of):
    torch.manual_seed(0)
    batch = batch_of(64)
    random = mean_loss(batch, torch.randn(64, 1, 512), torch.randn(64, 512))
    assert abs(random - math.log(64)) < 0.05
    matched = torch.eye(64)
    losses = [mean_loss(batch, matched.unsqueeze(1), matched, scale) for scale in (1.0, 10.0, 100.0)]
    assert losses[0] > losses[1] > losses[2] and losses[2] < 1e-6


def test_an_image_counts_by_its_best_query():
    images, texts = F.normalize(torch.randn(4, 3, 6), dim=-1), F.normalize(torch.randn(5, 6), dim=-1)
    wanted = torch.stack([images[:, query] @ texts.T for query in range(3)]).amax(0)
    torch.testing.assert_close(similarity(images, texts), wanted)


def test_a_batch_of_one_keeps_its_shapes_and_loses_nothing(batch_of, make_model, step_of):
    """LAVIS squeezes the similarities and fails here."""
    step = step_of(make_model(), Contrastive(), batch_of(1))
    assert step.totals["contrastive"] == 0
    assert step.metrics == {"image_to_text@1": (1.0, 1), "text_to_image@1": (1.0, 1)}


@pytest.mark.parametrize("low_format", [torch.bfloat16, torch.float16])
def test_similarity_stays_fp32_under_autocast(low_format):
    images, texts = torch.randn(3, 2, 8), torch.randn(4, 8)
    with torch.autocast("cpu", low_format):
        assert similarity(images.to(low_format), texts).dtype == torch.float32
        found = similarity(images, texts)
    torch.testing.assert_close(found, torch.einsum("bqe,ce->bqc", images, texts).amax(1))


def test_negatives_of_other_micro_batches_reach_both_towers_and_the_temperature(batch_of, make_model, step_of):
    """LAVIS gathers the other ranks' embeddings without gradient: each tower then sees half of its gradient."""
    model, batch = make_model(), batch_of(6)
    whole, cut = step_of(model, Contrastive(), batch), step_of(model, Contrastive(), batch, 2)
    for name in ("visual_projection.weight", "text_projection.weight", "log_temperature", "qformer.queries"):
        assert whole.gradients[name].abs().max() > 1e-4
        torch.testing.assert_close(cut.gradients[name], whole.gradients[name], atol=1e-6, rtol=1e-4)


def test_every_retrieval_is_counted(batch_of):
    swap = torch.eye(4)[[1, 0, 2, 3]]
    loss = Contrastive()(Given(torch.eye(4).unsqueeze(1), swap), Context(None, batch_of(4)))
    assert loss.metrics["image_to_text@1"] == (torch.tensor(2.0), 4)
    assert loss.metrics["text_to_image@1"] == (torch.tensor(2.0), 4)
