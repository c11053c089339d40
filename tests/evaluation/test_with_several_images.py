"""Questions, documents, shots, videos and tiles go all the way: from disk through a model, learned and evaluated."""

import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vlmtrain.connectors.linear import LinearConnector
from vlmtrain.data.collate import Collator
from vlmtrain.data.forms.base import Form, max_frames_of
from vlmtrain.data.forms.interleaved import Interleaved
from vlmtrain.data.forms.questions import Questions
from vlmtrain.data.forms.video_captioning import VideoCaptioning
from vlmtrain.data.loading import EvaluationBatches, LoadingPlan, StepLoader
from vlmtrain.data.scene_documents import SceneDocuments
from vlmtrain.data.scene_shots import SceneShots
from vlmtrain.data.scene_videos import SceneVideos
from vlmtrain.data.scenes.document_judge import DocumentJudge
from vlmtrain.data.scenes.video_judge import VideoJudge
from vlmtrain.data.scenes_data import SceneQuestions
from vlmtrain.data.tiling import Tiling
from vlmtrain.data.transforms import ImageTransform
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.evaluation.answering import Answering
from vlmtrain.evaluation.base import EvaluationTools
from vlmtrain.evaluation.captioning import Captioning
from vlmtrain.evaluation.held_out_loss import HeldOutLoss
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.models.vision_language_model import assemble
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.language_modeling import LanguageModeling

ENCODER = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
OPT = {"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32}
FEW = {"num_train": 4, "num_test": 5, "num_processes": 1}
DOCUMENTS = Captioning(DocumentJudge(), max_new_tokens=3)
CASES: dict[str, tuple[Any, Form, Any, Any]] = {
    "questions": (partial(SceneQuestions, num_compositional=0), Questions(max_turns=3), Answering(), ImageTransform),
    "tiles": (partial(SceneQuestions, num_compositional=0), Questions(), Answering(), partial(Tiling, max_tiles=3)),
    "documents": (partial(SceneDocuments, num_compositional=0), Interleaved(3), DOCUMENTS, ImageTransform),
    "shots": (partial(SceneShots, shots=(0, 2)), Interleaved(), Answering(), ImageTransform),
    "videos": (SceneVideos, VideoCaptioning(4), Captioning(VideoJudge(), max_new_tokens=3), ImageTransform),
    "video questions": (SceneVideos, Questions(max_frames=4), Answering(), ImageTransform),
}


@pytest.fixture
def model(byte_tokenizer: str) -> nn.Module:
    torch.manual_seed(0)
    architecture = {**OPT, "word_embed_proj_dim": 16, "max_position_embeddings": 600, "vocab_size": 400}
    language_model = CausalLanguageModel(architecture=architecture, tokenizer=byte_tokenizer, max_tokens=400)
    return assemble(VisionTransformer(**ENCODER), language_model, LinearConnector, Interleave)


@pytest.mark.parametrize("case", CASES)
def test_what_is_on_disk_is_learned_and_evaluated(case: str, model: Any, tmp_path: Path) -> None:
    make_data, form, evaluation, make_transform = CASES[case]
    data, transform = make_data(str(tmp_path), **FEW), make_transform(model.encoder.tile_sizes())
    most = max(getattr(transform, "max_tiles", 1), max_frames_of(form))
    collator = Collator(model.layout(), model.placeholders_per_item, most)
    loader = StepLoader(data.train, form, transform, collator, LoadingPlan(seed=0, batch_size=4, max_steps=2))
    for [batch] in loader.steps():
        assert not batch.quarantined and not batch.text.truncated and len(batch) == 4
        loss = LanguageModeling()(model, Context(model.encode(batch.visual), batch))
        assert all(math.isfinite(total.item()) for total in loss.totals.values())
    again = [micro[0].sample_ids for micro in loader.steps(start=1)]
    assert again == [micro[0].sample_ids for micro in loader.steps()][1:]
    batches = EvaluationBatches(form, transform, collator, batch_size=5)
    tools = EvaluationTools(torch.device("cpu"), batches, model.layout(), nullcontext, LanguageModeling())
    result = evaluation(model, data.evaluation, tools)
    what = "accuracy" if isinstance(evaluation, Answering) else "caption_accuracy"
    for split in data.evaluation:
        assert result.metrics[f"{split}/{what}"] == result.metrics[f"{split}/control_{what}"] == 0.0
    assert len(result.samples) == sum(len(source) for source in data.evaluation.values())
    assert all(sample.image and sample.references for sample in result.samples)
    losses = HeldOutLoss()(model, data.evaluation, tools).metrics
    assert all(losses[f"{split}/swapped_loss"] != losses[f"{split}/loss"] for split in data.evaluation)
