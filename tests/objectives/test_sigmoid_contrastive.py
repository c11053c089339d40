"""SigLIP's loss: every pair by itself, over any cut of the global batch."""

import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vlmtrain.objectives.base import Context, Everyone
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.sigmoid_contrastive import SigmoidContrastive


class Given(nn.Module):
    """A model whose embeddings are given."""

    def __init__(self, images: Tensor, texts: Tensor, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        self.images, self.texts = nn.Parameter(images), nn.Parameter(texts)
        self.scale, self.bias = nn.Parameter(torch.tensor(scale)), nn.Parameter(torch.tensor(bias))

    def encode(self, visual): ...

    def layout(self): ...

    def placeholders_per_item(self, tiles): ...

    def embed_visual(self, visual):
        return F.normalize(self.images, dim=-1)

    def embed_text(self, text):
        return F.normalize(self.texts, dim=-1)

    def similarity_scale(self):
        return self.scale

    def similarity_bias(self):
        return self.bias


def gradients(model: nn.Module, total: Tensor) -> list[Tensor]:
    model.zero_grad()
    total.backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_every_pair_is_judged_by_itself(batch_of, chunk):
    torch.manual_seed(0)
    model = Given(torch.randn(5, 1, 6), torch.randn(5, 6), 7.0, -2.0)
    (total,) = SigmoidContrastive(chunk=chunk)(model, Context(None, batch_of(5))).totals.values()
    wanted = torch.zeros(())
    for i in range(5):
        for j in range(5):
            logit = 7.0 * F.cosine_similarity(model.images[i, 0], model.texts[j], dim=0) - 2.0
            wanted = wanted - F.logsigmoid(logit if i == j else -logit)
    torch.testing.assert_close(total, wanted)


def test_matched_orthogonal_goes_to_zero_and_the_first_loss_is_that_of_the_bias(batch_of):
    images = torch.eye(8)
    losses = [
        SigmoidContrastive()(Given(images.unsqueeze(1), images, scale, -scale / 2), Context(None, batch_of(8)))
        for scale in (4.0, 20.0, 100.0)
    ]
    totals = [loss.totals["sigmoid_contrastive"].item() for loss in losses]
    assert totals[0] > totals[1] > totals[2] and totals[2] < 1e-6
    assert losses[0].metrics["image_to_text@1"] == (torch.tensor(8.0), 8)
    blind = SigmoidContrastive()(Given(images.unsqueeze(1), images, 1e-9, -10.0), Context(None, batch_of(8)))
    wanted = 8 * math.log1p(math.exp(10.0)) + 56 * math.log1p(math.exp(-10.0))
    assert blind.totals["sigmoid_contrastive"].item() == pytest.approx(wanted, rel=1e-5)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), parts=st.sampled_from([2, 3, 6]), queries=st.integers(1, 3), chunk=st.integers(1, 9))
def test_t14_the_parts_of_a_global_batch_add_up(batch_of, seed, parts, queries, chunk):
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(6, queries, 4, generator=generator), torch.randn(6, 4, generator=generator)
    model, objective = Given(images, texts, 5.0, -1.0), SigmoidContrastive(chunk=chunk)
    whole = objective(model, Context(None, batch_of(6)))
    wanted = gradients(model, whole.totals["sigmoid_contrastive"])
    everyone = {
        "visual_embeddings": model.embed_visual(None).detach(),
        "text_embeddings": model.embed_text(None).detach(),
    }
    size, total, found = 6 // parts, 0.0, [torch.zeros_like(each) for each in wanted]
    hits = 0.0
    for start in range(0, 6, size):
        rows = slice(start, start + size)
        part = Given(images[rows], texts[rows], 5.0, -1.0)
        loss = objective(part, Context(None, batch_of(size), Everyone(everyone, batch_of(6).text, start)))
        total += loss.totals["sigmoid_contrastive"].item()
        hits += float(loss.metrics["image_to_text@1"][0])
        for own, whole_gradient in zip(gradients(part, loss.totals["sigmoid_contrastive"]), found, strict=True):
            (whole_gradient[rows] if whole_gradient.ndim else whole_gradient).add_(own)
    assert abs(total - whole.totals["sigmoid_contrastive"].item()) < 1e-4
    assert hits == float(whole.metrics["image_to_text@1"][0])
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-5)


def test_a_model_without_bias_is_refused_and_weight_zero_costs_nothing(batch_of, make_model):
    with pytest.raises(ValueError, match="similarity_bias"):
        SigmoidContrastive().require(make_model())
    SigmoidContrastive().require(Given(torch.randn(2, 1, 3), torch.randn(2, 3)))
    Contrastive().require(Given(torch.randn(2, 1, 3), torch.randn(2, 3)))
    off = SigmoidContrastive(weight=0.0)
    assert off.weights() == off.counts(batch_of(2)) == off.survey(None, None) == off(None, None).totals == {}
    with pytest.raises(ValueError, match="chunk is 0"):
        SigmoidContrastive(chunk=0)


def run_step(folder: Path, world: int, accumulate: int) -> None:
    """One step of a real update on this rank."""
    from conftest import TinyEncoder, cut, make_batch

    from vlmtrain.batch import TextBatch
    from vlmtrain.language_models.text_encoder import TextEncoder
    from vlmtrain.models.sigmoid_dual_encoder import SigmoidDualEncoder
    from vlmtrain.nn.pooling import Mean
    from vlmtrain.training.accelerator import build_accelerator
    from vlmtrain.training.optimizer import AdamWChoices, build_optimizer
    from vlmtrain.training.schedule import Schedule
    from vlmtrain.training.step import TrainingStep
    from vlmtrain.training.trainability import component_names, set_trainability
    from vlmtrain.training.update import Update

    class Words(TextEncoder):
        width = 12

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(40, 12)

        def layout(self):
            raise NotImplementedError

        def forward(self, text: TextBatch) -> Tensor:
            counted = text.attention_mask.unsqueeze(-1).float()
            return (self.table(text.input_ids) * counted).sum(1) / counted.sum(1)

    accelerator = build_accelerator("fp32", world)
    torch.manual_seed(0)
    model = SigmoidDualEncoder(TinyEncoder(), Words(), 8, bias=-1.0, pooling=Mean)
    rates = set_trainability(model, {name: 1.0 for name in component_names(model) if name != "pooling"})
    optimizer = build_optimizer(model, rates, AdamWChoices())
    kept: dict[str, Tensor] = {}
    optimizer.register_step_pre_hook(
        lambda *_: kept.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    )
    step = TrainingStep(model, SigmoidContrastive(chunk=3))
    update = Update(accelerator, step, optimizer, Schedule(lr=1e-3, max_steps=2), gradient_clip_norm=None)
    pieces = cut(make_batch(8), 8 // (world * accumulate))
    result = update([pieces[index * world + accelerator.process_index] for index in range(accumulate)], step=0)
    (share,) = result.shares.values()
    kept["loss"] = accelerator.reduce(share, "sum").detach()
    if accelerator.process_index == 0:
        torch.save(kept, folder / "step.pt")


@pytest.mark.slow
def test_t14_two_processes_and_accumulation_equal_one_batch(tmp_path: Path) -> None:
    """Loss and every gradient to 1e-5."""
    children = []
    for name, (world, accumulate) in {"one": (1, 1), "two": (2, 1), "both": (2, 2)}.items():
        (tmp_path / name).mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, __file__, str(tmp_path / name), str(world), str(accumulate)]
        children += [
            subprocess.Popen(
                command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
            )
            for rank in range(world)
        ]
    assert [child.wait(timeout=240) for child in children] == [0] * len(children)
    steps = {name: torch.load(tmp_path / name / "step.pt") for name in ("one", "two", "both")}
    wanted = steps.pop("one")
    assert {"loss", "log_scale", "bias", "encoder.project.weight", "text_encoder.table.weight"} <= wanted.keys()
    for step in steps.values():
        assert step.keys() == wanted.keys()
        assert max(float((step[key] - value).abs().max()) for key, value in wanted.items()) < 1e-5


if __name__ == "__main__":
    run_step(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
