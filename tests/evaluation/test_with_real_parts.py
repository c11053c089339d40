"""The evaluations on the embedded data, in every format, with the models of BLIP-2 as they are built in a run."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from vlmtrain.connectors.linear import LinearConnector
from vlmtrain.data.collate import Collator
from vlmtrain.data.forms.captioning import Captioning as CaptioningForm
from vlmtrain.data.loading import EvaluationBatches
from vlmtrain.data.scene_classes import SceneClasses
from vlmtrain.data.scenes.scene_judge import SceneJudge
from vlmtrain.data.scenes_data import Scenes
from vlmtrain.data.shifted import Shifted
from vlmtrain.data.shifts.noise import Noise
from vlmtrain.data.transforms import ImageTransform
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.evaluation.base import EvaluationTools
from vlmtrain.evaluation.captioning import Captioning
from vlmtrain.evaluation.classification import Classification
from vlmtrain.evaluation.few_shot_probe import FewShotProbe
from vlmtrain.evaluation.held_out_loss import HeldOutLoss
from vlmtrain.evaluation.retrieval import Retrieval
from vlmtrain.evaluation.zero_shot import ZeroShot
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.models.qformer_pretraining import QFormerPretraining
from vlmtrain.models.vision_language_model import assemble
from vlmtrain.nn.qformer import QFormer
from vlmtrain.nn.tile_sizes import Squares
from vlmtrain.objectives.language_modeling import LanguageModeling

ENCODER = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "num_heads": 2}
OPT = {"model_type": "opt", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32}


def make_tools(model: nn.Module, batch_size: int = 3) -> EvaluationTools:
    collator = Collator(model.layout(), model.placeholders_per_item)
    batches = EvaluationBatches(CaptioningForm(), ImageTransform(Squares(32)), collator, batch_size)
    return EvaluationTools(torch.device("cpu"), batches, model.layout(), nullcontext, LanguageModeling())


@pytest.fixture
def make_sources(tmp_path: Path):
    def make(format: str) -> dict:
        folder = str(tmp_path / format)
        return Scenes(folder, format, num_train=2, num_test=8, num_compositional=4, num_processes=1).evaluation

    return make


@pytest.fixture
def writer(byte_tokenizer: str) -> nn.Module:
    torch.manual_seed(0)
    architecture = {**OPT, "word_embed_proj_dim": 16, "max_position_embeddings": 128, "vocab_size": 400}
    language_model = CausalLanguageModel(architecture=architecture, tokenizer=byte_tokenizer)
    return assemble(VisionTransformer(**ENCODER), language_model, LinearConnector, Interleave)


@pytest.mark.parametrize("format", ["webdataset", "jsonl", "parquet"])
def test_captions_are_judged_in_every_format(writer, make_sources, format):
    evaluation = Captioning(SceneJudge(), max_new_tokens=4, num_samples=2)
    result = evaluation(writer, make_sources(format), make_tools(writer))
    assert result.metrics["test/caption_accuracy"] == result.metrics["test/things_right"] == 0.0
    assert result.metrics["compositional/control_caption_accuracy"] == 0.0
    assert result.metrics["compositional/held_out_pairs/caption_accuracy"] == 0.0
    assert result.metrics["test/num_captions"] == 8
    assert len(result.samples) == 4 and result.samples[0].image.startswith(b"\xff\xd8")
    assert len(result.samples[0].references) == 5


def test_the_true_captions_are_right_all_the_way_from_disk(writer, make_sources):
    """A model that writes the record's own caption, by way of pixels, tokens and back, gets everything right."""
    sources, tools = make_sources("webdataset"), make_tools(writer)
    layout, captions = writer.layout(), {}
    for source in sources.values():
        for records, batch in tools.batches(source, None, True):
            for record, pixels in zip(records, batch.visual.pixels, strict=True):
                captions[pixels.numpy().tobytes()] = record.captions[0]

    def write(visual, text, max_new_tokens):
        said = [captions[tile.numpy().tobytes()] for tile in visual.patches]
        ids = [layout.tokenizer(" " + caption, add_special_tokens=False)["input_ids"] for caption in said]
        end = layout.tokenizer.eos_token_id
        return torch.tensor([row + [end] * (1 + max(map(len, ids)) - len(row)) for row in ids])

    writer.encode = lambda visual: type("Seen", (), {"patches": visual.pixels})()
    writer.write = write
    result = Captioning(SceneJudge(), max_new_tokens=4)(writer, sources, tools)
    assert result.metrics["test/caption_accuracy"] == result.metrics["compositional/caption_accuracy"] == 1.0
    assert result.metrics["compositional/held_out_relations/caption_accuracy"] == 1.0
    assert result.metrics["test/control_caption_accuracy"] == result.metrics["test/chance_caption_accuracy"] == 0.0


def test_retrieval_with_a_matching_head(make_sources, byte_tokenizer):
    torch.manual_seed(0)
    qformer = partial(QFormer, width=16, num_queries=3, depth=2, num_heads=2, feed_forward_width=32)
    model = QFormerPretraining(VisionTransformer(**ENCODER), qformer, byte_tokenizer, 8, max_tokens=64)
    sources = make_sources("jsonl")
    metrics = Retrieval(num_candidates=4, rerank=2)(model, sources, make_tools(model)).metrics
    again = Retrieval(num_candidates=4, rerank=2)(model, sources, make_tools(model, 8)).metrics
    assert metrics == again
    assert metrics["test/num_groups"] == 2 and metrics["compositional/image_to_text_r5"] == 1.0
    assert 0.0 <= metrics["test/text_to_image_r1_reranked"] <= 1.0


def test_classes_by_names_and_examples_with_several_vectors_an_image(byte_tokenizer):
    torch.manual_seed(0)
    qformer = partial(QFormer, width=16, num_queries=3, depth=2, num_heads=2, feed_forward_width=32)
    model = QFormerPretraining(VisionTransformer(**ENCODER), qformer, byte_tokenizer, 8, max_tokens=64)
    data = Shifted(SceneClasses(num_test=4, num_compositional=2, num_shots=1), {"noise": Noise()})
    by = {"zero_shot": ZeroShot(["there is a {}"]), "probe": FewShotProbe(1)}
    metrics = Classification(data, by)(model, {}, make_tools(model, 25)).metrics
    assert (
        metrics["test/zero_shot_gap"] == metrics["test/zero_shot_accuracy"] - metrics["test/noise/zero_shot_accuracy"]
    )
    assert metrics["compositional/num_images"] == 2 and metrics["test/chance_probe_accuracy"] == 1 / 49


def test_held_out_loss_of_a_language_model(writer, make_sources):
    metrics = HeldOutLoss("test")(writer, make_sources("jsonl"), make_tools(writer)).metrics
    whole = HeldOutLoss("test")(writer, make_sources("jsonl"), make_tools(writer, 8)).metrics
    assert metrics["test/loss"] == pytest.approx(whole["test/loss"], abs=1e-5)
    assert metrics["test/swapped_loss"] != metrics["test/loss"]
