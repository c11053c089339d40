"""An encoder-decoder behind encoder, connector and fusion: T25, T34, and texts without images."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vlmtrain.batch import IGNORED_TARGET, TextBatch, VisualBatch
from vlmtrain.connectors.qformer import QFormerConnector
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.fusions.interleave import Interleave
from vlmtrain.language_models.seq2seq import Seq2SeqLanguageModel
from vlmtrain.layout import Part, Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel, assemble
from vlmtrain.nn.qformer import QFormer

T5 = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 320,
    "decoder_start_token_id": 1,
    "pad_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture
def model(byte_tokenizer: str) -> VisionLanguageModel:
    torch.manual_seed(0)
    words = Seq2SeqLanguageModel(architecture=T5, tokenizer=byte_tokenizer)
    qformer = partial(QFormer, width=16, num_queries=3, depth=2, num_heads=2)
    connector = partial(QFormerConnector, qformer=qformer)
    model = assemble(VisionTransformer(16, 8, 24, 2, 4, tap=-2), words, connector, Interleave)
    with torch.no_grad():  # random weights so small that nothing would be heard otherwise
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    model.encoder.requires_grad_(False)
    model.language_model.requires_grad_(False)
    return model.eval()


def images(items_per_sample: list[int], seed: int = 0) -> VisualBatch:
    generator = torch.Generator().manual_seed(seed)
    num_items = sum(items_per_sample)
    pixels = torch.randint(0, 256, (num_items, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return VisualBatch(pixels, [1] * num_items, items_per_sample)


def logits_of(model: VisionLanguageModel, visual: VisualBatch, text: TextBatch) -> Tensor:
    assert text.targets is not None
    tokens = model.connector(model.encode(visual), text)
    with torch.no_grad(), model.fusion.entering(model.language_model, text, tokens) as embeddings:
        return model.language_model.logits(embeddings, text.attention_mask, text.targets)


SAMPLES: list[list[Part]] = [
    [Visual(), Text("what colour is it?", supervised=False), Text(" red")],
    [Visual(), Text("a small circle left of a square")],
    [Text("only words")],
]


def test_t34_the_encoder_reads_as_many_positions_as_there_are_visual_and_text_tokens(
    model: VisionLanguageModel,
) -> None:
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    prompt = len(model.layout().tokenizer.encode("what colour is it?", add_special_tokens=False))
    assert text.attention_mask.sum(1).tolist() == [3 + prompt + 1, 3 + 1, 1]
    lengths: list[int] = []
    model.language_model.input_layers[0].register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    found = model.target_states(model.encode(images([1, 1, 0])), text)
    assert lengths == [3 + prompt + 1]
    assert len(found.states) == len(found.targets) == text.supervised


def test_t34_the_loss_is_of_the_decoders_targets_and_trains_the_connector_alone(model: VisionLanguageModel) -> None:
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    assert text.targets is not None
    found = model.target_states(model.encode(images([1, 1, 0])), text)
    loss = F.cross_entropy(found.head(found.states), found.targets)
    logits = logits_of(model, images([1, 1, 0]), text)
    assert logits.shape[:2] == text.targets.shape and logits.shape[1] != text.input_ids.shape[1]
    wanted = F.cross_entropy(logits.flatten(0, 1), text.targets.flatten(), ignore_index=IGNORED_TARGET)
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == reached and all(name.startswith("connector.") for name in trained)


def test_t34_another_image_and_a_masked_one_change_every_answer_about_it(model: VisionLanguageModel) -> None:
    text = model.layout().write(SAMPLES, model.placeholders_per_item)
    assert text.targets is not None
    base = logits_of(model, images([1, 1, 0]), text)
    masked = TextBatch(text.input_ids, text.attention_mask & ~text.visual_mask, text.visual_mask, text.targets,
                       placeholders=text.placeholders)  # fmt: skip
    for changed in (logits_of(model, images([1, 1, 0], seed=1), text), logits_of(model, images([1, 1, 0]), masked)):
        moved = (changed - base).abs().amax(-1)
        is_target = text.targets != IGNORED_TARGET
        assert (moved[:2][is_target[:2]] > 1e-4).all()
        assert (moved[2] < 1e-5).all()  # no image in that one


def test_each_answer_is_written_as_if_it_were_alone(model: VisionLanguageModel) -> None:
    prompts: list[list[Part]] = [[Visual(), Text("what?", False)], [Visual()], [Text("only words", False)]]
    text = model.layout().write_prompts(prompts, model.placeholders_per_item)
    visual = images([1, 1, 0])
    with torch.no_grad():
        written = model.write(model.encode(visual), text, 5)
        for row, num_items in enumerate(visual.items_per_sample):
            alone = model.layout().write_prompts([prompts[row]], model.placeholders_per_item)
            own = VisualBatch(visual.pixels[row : row + num_items], [1] * num_items, [num_items])
            said = model.write(model.encode(own), alone, 5)[0].tolist()
            assert written[row, : len(said)].tolist() == said
