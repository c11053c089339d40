"""A model that embeds images and texts, and a frozen one that it learns from.  HasTeacher, EmbedsBoth."""

import torch
from torch import Tensor, nn

from vlmtrain.batch import TextBatch, VisualBatch, VisualFeatures
from vlmtrain.encoders.base import VisionEncoder
from vlmtrain.layout import Layout, Text
from vlmtrain.models.capabilities import EmbedsBoth

_PROBE = "A red square is above 2 blue circles."


class Taught(nn.Module):
    """Everything as `student` has it; `teacher` only answers what it would say of the same pixels and the same rows.

    Freeze the teacher (`trainable: {teacher: null}`) and let it start from where it was trained (`start_from: {teacher:
    {stage: STAGE, part: "*"}}`, or weights of its own source).

    Args:
        student: EmbedsBoth.
        teacher: EmbedsBoth, of the same image size and with the same words.  Its space may be another.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        for name, model in (("student", student), ("teacher", teacher)):
            if not isinstance(model, EmbedsBoth):
                raise ValueError(
                    f"{name} is a {type(model).__name__}, which does not embed images and texts; give a dual encoder"
                )
        self.student: EmbedsBoth = student  # type: ignore[assignment]  # nn.Module does not tell
        self.teacher: EmbedsBoth = teacher  # type: ignore[assignment]
        if self.encoder.tile_sizes() != teacher.encoder.tile_sizes():  # type: ignore[union-attr,operator]
            raise ValueError(
                f"the student reads images of {self.encoder.tile_sizes()} and the teacher of "
                f"{teacher.encoder.tile_sizes()}; they see the same pixels: give both one image_size"  # type: ignore[union-attr,operator]
            )

    @property
    def encoder(self) -> VisionEncoder:
        """Of the student: what images are made for."""
        return self.student.encoder  # type: ignore[attr-defined,no-any-return]

    def layout(self) -> Layout:
        """The student's.  ValueError where the teacher would read other rows."""
        layouts = {"student": self.student.layout(), "teacher": self.teacher.layout()}
        rows = {who: each.write([[Text(_PROBE)]], lambda _: 0).input_ids[0].tolist() for who, each in layouts.items()}
        if rows["student"] != rows["teacher"]:
            raise ValueError(
                f"student and teacher read the same rows, and write {_PROBE!r} as {rows['student']} and "
                f"{rows['teacher']}; give both one tokenizer"
            )
        return layouts["student"]

    def placeholders_per_item(self, tiles: int) -> int:
        return self.student.placeholders_per_item(tiles)

    def encode(self, visual: VisualBatch) -> VisualFeatures:
        return self.student.encode(visual)

    def embed_visual(self, visual: VisualFeatures) -> Tensor:
        return self.student.embed_visual(visual)

    def embed_text(self, text: TextBatch) -> Tensor:
        return self.student.embed_text(text)

    def similarity_scale(self) -> Tensor:
        return self.student.similarity_scale()

    @torch.no_grad()
    def teach(self, visual: VisualBatch, text: TextBatch) -> tuple[Tensor, Tensor]:
        """The teacher's vectors of a batch: [B, Q, E] of the images, [B, E] of the texts."""
        if any(parameter.requires_grad for parameter in self.teacher.parameters()):  # type: ignore[attr-defined]
            raise ValueError("the teacher would train, and nobody taught it; set trainable: {teacher: null}")
        return self.teacher.embed_visual(self.teacher.encode(visual)), self.teacher.embed_text(text)

    def teacher_scale(self) -> Tensor:
        return self.teacher.similarity_scale().detach()
