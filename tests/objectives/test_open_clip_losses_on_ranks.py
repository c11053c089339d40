"""T14: our contrastive losses on several ranks against open_clip's, loss and every gradient, in each of its variants.

The file is its own child process: `python FILE FOLDER` imports what is needed, which takes longest, forks two ranks
and then four, and each goes through all variants.
"""

import math
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vlmtrain.batch import Batch, TextBatch, VisualBatch, VisualFeatures
from vlmtrain.layout import Layout

SAMPLES, WIDTH, WORLDS = 8, 6, (2, 4)
LOCAL, GATHERED = (False, True), (False, True)  # open_clip's local_loss and gather_with_grad
EXCHANGES = ("bidir", "shift", "reduce", "gather")  # open_clip's dist_impl of SigLipLoss
TOWERS = ("image.weight", "image.bias", "words.weight")


class Towers(nn.Module):
    """Two linear towers, a scale and perhaps a bias; with what our objectives ask for, and open_clip's losses."""

    def __init__(self, with_bias: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Linear(12, WIDTH)
        self.words = nn.Embedding(20, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))
        self.bias = nn.Parameter(torch.tensor(-2.0)) if with_bias else None

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return VisualFeatures(visual.pixels.flatten(1).float().unsqueeze(1) / 255, [], [])

    def layout(self) -> Layout:
        raise NotImplementedError

    def placeholders_per_item(self, tiles: int) -> int:
        return 0

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return F.normalize(self.image(visual.patches), dim=-1)

    def embed_text(self, text: TextBatch) -> Tensor:
        return F.normalize(self.words(text.input_ids).mean(1), dim=-1)

    def similarity_scale(self) -> Tensor:
        return self.log_scale.exp()

    def similarity_bias(self) -> Tensor:
        assert self.bias is not None
        return self.bias

    def forward(self, batch: Batch) -> list[Tensor]:
        """What open_clip's losses take."""
        images, texts = self.embed_visual(self.encode(batch.visual)).squeeze(1), self.embed_text(batch.text)
        given = [images, texts, self.similarity_scale()]
        return given if self.bias is None else [*given, self.bias * 1]  # DDP wants results, not parameters


def samples(start: int = 0, size: int = SAMPLES) -> Batch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (SAMPLES, 3, 2, 2), dtype=torch.uint8, generator=generator)
    ids = torch.randint(0, 20, (SAMPLES, 3), generator=generator)
    every, rows = torch.ones(size, 3, dtype=torch.bool), slice(start, start + size)
    return Batch(VisualBatch(pixels[rows], [1] * size, [1] * size), TextBatch(ids[rows], every, ~every))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def ours(kind: str, rank: int, world: int, accumulate: int) -> dict[str, Tensor]:
    """One step of the trainer, with this rank's micro-batches."""
    from vlmtrain.objectives.contrastive import Contrastive
    from vlmtrain.objectives.sigmoid_contrastive import SigmoidContrastive
    from vlmtrain.training.accelerator import build_accelerator
    from vlmtrain.training.schedule import Schedule
    from vlmtrain.training.step import TrainingStep
    from vlmtrain.training.update import Update

    model, found = Towers(kind == "siglip"), {}
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "multiple": 1.0}])
    optimizer.register_step_pre_hook(lambda *_: found.update(gradients(model)))
    accelerator = build_accelerator("fp32", world)
    objective = Contrastive() if kind == "clip" else SigmoidContrastive(chunk=3)
    update = Update(accelerator, TrainingStep(model, objective), optimizer, Schedule(0.1, 10), gradient_clip_norm=None)
    size = SAMPLES // (world * accumulate)
    result = update([samples((index * world + rank) * size, size) for index in range(accumulate)], 0)
    return {"loss": accelerator.reduce(result.loss(), "sum").detach(), **found}


def theirs(loss: nn.Module, rank: int, world: int, with_bias: bool) -> dict[str, Tensor]:
    """The same step as open_clip takes it: the loss of each rank, gradients averaged by DDP."""
    from torch.nn.parallel import DistributedDataParallel

    model, size = Towers(with_bias), SAMPLES // world
    wrapped = DistributedDataParallel(model)  # has to live until backward is through
    value = loss(*wrapped(samples(rank * size, size)))
    value.backward()
    average = value.detach().clone()
    torch.distributed.all_reduce(average)
    return {"loss": average / world, **gradients(model)}


def run_rank(folder: str, rank: int, world: int, port: int) -> None:
    """All variants on one rank; the first one writes down what came out."""
    from open_clip.loss import ClipLoss, SigLipLoss

    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), **where)
    found = {}
    for kind in ("clip", "siglip"):
        for accumulate in (1, 2):
            found[f"ours/{kind}/{accumulate}"] = ours(kind, rank, world, accumulate)
    for local in LOCAL:
        for gathered in GATHERED:
            loss = ClipLoss(local_loss=local, gather_with_grad=gathered, rank=rank, world_size=world)
            found[f"clip/{local}/{gathered}"] = theirs(loss, rank, world, with_bias=False)
    for exchange in EXCHANGES:
        loss = SigLipLoss(rank=rank, world_size=world, dist_impl=exchange)
        found[f"siglip/{exchange}"] = theirs(loss, rank, world, with_bias=True)
    if rank == 0:
        flat = {f"{key}:{name}": value for key, each in found.items() for name, value in each.items()}
        save_file(flat, Path(folder, f"{world}.safetensors"))
    torch.distributed.destroy_process_group()


def launch(folder: str) -> None:
    """Fork the ranks from a process that has imported what they need, and has done nothing else."""
    import open_clip.loss  # noqa: F401
    import torch._dynamo  # noqa: F401

    import vlmtrain.training.update  # noqa: F401

    context = multiprocessing.get_context("fork")
    for world in WORLDS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = [context.Process(target=run_rank, args=(folder, rank, world, port)) for rank in range(world)]
        for each in ranks:
            each.start()
        while any(each.is_alive() for each in ranks):
            time.sleep(0.1)
            if any(each.exitcode for each in ranks):  # the others would wait for it
                for each in ranks:
                    each.kill()
        if any(each.exitcode for each in ranks):
            sys.exit(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all ranks of all runs have left what came out."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, __file__, str(folder)]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=500, check=False).returncode == 0
    return folder


@pytest.fixture(params=WORLDS)
def on_ranks(request: pytest.FixtureRequest, folder: Path) -> tuple[int, dict]:
    """How many ranks, and what each variant gave on them: name -> loss and gradients."""
    world = request.param
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in load_file(folder / f"{world}.safetensors").items():
        variant, what = name.rsplit(":", 1)
        found.setdefault(variant, {})[what] = value
    return world, found


def one_process(loss: nn.Module, with_bias: bool) -> dict[str, Tensor]:
    """open_clip on one process and the whole batch."""
    model = Towers(with_bias)
    value = loss(*model(samples()))
    value.backward()
    return {"loss": value.detach(), **gradients(model)}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], what: str) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value.abs().max() > 1e-4, f"{what}: {name} would be right for nothing"
        assert (found[name] - value).abs().max() < 1e-5, f"{what}: {name}"


def test_t14_contrastive_loss_is_clip_loss_where_that_is_exact(on_ranks: tuple[int, dict]) -> None:
    """With gather_with_grad open_clip's gradient is that of the global batch, local_loss or not, and so is ours."""
    from open_clip.loss import ClipLoss

    _, found = on_ranks
    wanted = one_process(ClipLoss(), with_bias=False)
    for variant in ("ours/clip/1", "ours/clip/2", "clip/False/True", "clip/True/True"):
        assert_equal(found[variant], wanted, variant)


def test_t14_without_local_loss_or_gradient_through_the_gather_the_towers_get_a_share(
    on_ranks: tuple[int, dict],
) -> None:
    """Each rank has the loss of all, but its gradient by its own samples only; DDP then averages what it ought to add.
    So the towers learn by 1 / ranks of our gradient.  The scale, which every rank has whole, learns by all of it."""
    world, found = on_ranks
    got, exact = found["clip/False/False"], found["ours/clip/1"]
    scaled = {name: value * world if name in TOWERS else value for name, value in got.items()}
    assert_equal(scaled, exact, "local_loss=False, gather_with_grad=False")
    assert (got["image.weight"] - exact["image.weight"]).abs().max() > 1e-4


def test_t14_with_local_loss_and_no_gradient_through_the_gather_half_of_the_gradient_is_missing(
    on_ranks: tuple[int, dict],
) -> None:
    """An image then learns to find its text, but not to be found by it: keys are constants.  What open_clip's variant
    gives, and the gradient by the keys alone, written out, together are ours."""
    _, found = on_ranks
    got, exact = found["clip/True/False"], found["ours/clip/1"]
    model = Towers(with_bias=False)
    images, texts, scale = model(samples())
    pair = torch.arange(SAMPLES)
    by_keys = F.cross_entropy(scale.detach() * images.detach() @ texts.T, pair)
    by_keys = (by_keys + F.cross_entropy(scale.detach() * texts.detach() @ images.T, pair)) / 2
    by_keys.backward()
    together = {name: value + gradients(model).get(name, 0) for name, value in got.items()}
    assert_equal(together, exact, "local_loss=True, gather_with_grad=False")
    assert (got["image.weight"] - exact["image.weight"]).abs().max() > 1e-4


def test_t14_sigmoid_loss_is_siglip_loss_however_the_texts_go_round(on_ranks: tuple[int, dict]) -> None:
    from open_clip.loss import SigLipLoss

    _, found = on_ranks
    wanted = one_process(SigLipLoss(), with_bias=True)
    for variant in ("ours/siglip/1", "ours/siglip/2", *(f"siglip/{exchange}" for exchange in EXCHANGES)):
        assert_equal(found[variant], wanted, variant)


if __name__ == "__main__":
    launch(sys.argv[1])
