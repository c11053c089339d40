"""The student's similarities are pulled to the teacher's: by the formula written out, and however the batch is cut."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from vlmtrain.models.taught import Taught
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.contrastive import Contrastive
from vlmtrain.objectives.image_text_distillation import ImageTextDistillation
from vlmtrain.objectives.mixture import Mixture
from vlmtrain.objectives.similarity import similarity

PARTS = ("encoder", "pooling", "text_encoder", "visual_projection", "text_projection", "log_scale")


@pytest.fixture
def make_taught(make_model):
    def make(like_teacher: bool = False, **choices) -> Taught:
        student, teacher = make_model(frozen_encoder=False, **choices), make_model()
        if not like_teacher:
            generator = torch.Generator().manual_seed(7)
            for parameter in teacher.parameters():
                parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
        teacher.requires_grad_(False).eval()
        return Taught(student, teacher)

    return make


def written_out(model: Taught, batch) -> torch.Tensor:
    """Equations 2 to 4, for both directions."""
    student = similarity(model.embed_visual(model.encode(batch.visual)), model.embed_text(batch.text))
    teacher = similarity(*model.teach(batch.visual, batch.text))
    total = torch.zeros(())
    for own, its in (
        (model.similarity_scale() * student, model.teacher_scale() * teacher),
        (model.similarity_scale() * student.T, model.teacher_scale() * teacher.T),
    ):
        total = total - (F.softmax(its, 1) * F.log_softmax(own, 1)).sum() / 2
    return total


@pytest.mark.parametrize("size", [6, 3, 2, 1])
def test_it_is_the_formula_however_the_batch_is_cut(make_taught, batch_of, step_of, size):
    model, batch = make_taught(), batch_of(6)
    found = step_of(model, ImageTextDistillation(), batch, size)
    model.zero_grad()
    wanted = written_out(model, batch)
    (wanted / 6).backward()
    torch.testing.assert_close(found.totals["image_text_distillation"], wanted.detach())
    names = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert names and all(name.startswith("student.") for name in names)
    largest = max(float(parameter.grad.abs().max()) for parameter in model.parameters() if parameter.grad is not None)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gap = (found.gradients.get(name, torch.zeros(())) - parameter.grad).abs().max()
            assert gap < 1e-5 * largest, name


@pytest.mark.parametrize("size", [4, 1])
def test_who_says_what_the_teacher_says_learns_nothing(make_taught, batch_of, step_of, size):
    found = step_of(make_taught(like_teacher=True), ImageTextDistillation(), batch_of(4), size)
    assert all(gradient.abs().max() < 1e-5 for gradient in found.gradients.values())


@pytest.mark.parametrize("size", [6, 2])
def test_beside_contrast_it_is_one_more_term(make_taught, batch_of, step_of, size):
    model, batch = make_taught(), batch_of(6)
    both = Mixture({"contrastive": Contrastive(), "distillation": ImageTextDistillation(0.5)})
    assert both.weights() == {"contrastive": 1.0, "distillation": 0.5}
    found = step_of(model, both, batch, size)
    for name, objective in (("contrastive", Contrastive()), ("distillation", ImageTextDistillation())):
        alone = step_of(model, objective, batch)
        torch.testing.assert_close(found.totals[name], next(iter(alone.totals.values())))
    off = ImageTextDistillation(0.0)
    assert off.weights() == {} and off.survey(model, Context(None, batch)) == {}


def test_a_teacher_that_would_train_is_told(make_taught, batch_of):
    model, batch = make_taught(), batch_of(2)
    model.teacher.requires_grad_(True)
    with pytest.raises(ValueError, match=r"set trainable: \{teacher: null\}"):
        model.teach(batch.visual, batch.text)


def test_who_cannot_teach_or_learn_is_told(make_taught, make_model, make_joint, batch_of, tmp_path):
    with pytest.raises(ValueError, match="teacher is a JointEncoder, which does not embed"):
        Taught(make_model(), make_joint())
    with pytest.raises(ValueError, match="needs a model with"):
        ImageTextDistillation().require(make_model())
    model = make_taught()
    assert model.layout() is not None
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"zyxwvutsrqponmlkjihgfedcba", ".", "2"]
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(tmp_path)
    model.teacher.tokenizer = BertTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="give both one tokenizer"):
        model.layout()
    other = make_model()
    other.encoder.image_size = 8
    with pytest.raises(ValueError, match="give both one image_size"):
        Taught(make_model(), other)


def test_a_smaller_clip_learns_from_a_trained_one(train_experiment: Callable[..., Path], tmp_path: Path) -> None:
    """From the command line, with a run of `clip` as the teacher."""
    teacher = train_experiment("clip", 1).rename(tmp_path / "teacher")
    terms = {"contrast": "contrastive.Contrastive", "distillation": "image_text_distillation.ImageTextDistillation"}
    objectives = ", ".join(f"{name}: {{_target_: vlmtrain.objectives.{kind}}}" for name, kind in terms.items())
    run = train_experiment(
        "clip",
        2,
        f"init_from={teacher}",
        "stages.contrastive.model={_target_: vlmtrain.models.taught.Taught, student: ${model}, teacher: ${model}}",
        *(f"~stages.contrastive.trainable.{part}" for part in PARTS),
        "+stages.contrastive.trainable.student=1.0",
        "+stages.contrastive.trainable.teacher=null",
        "stages.contrastive.start_from={teacher: {stage: contrastive, part: '*'}}",
        f"stages.contrastive.objective={{_target_: vlmtrain.objectives.mixture.Mixture, objectives: {{{objectives}}}}}",
    )
    assert "loss/distillation" in (run / "metrics.jsonl").read_text()
