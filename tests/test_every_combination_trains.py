"""Every connector of conf/ with its fusion, before a decoder, an encoder-decoder and a state-space model: one step.

What should train gets a gradient, and nothing else does or moves.  A new connector file is found by itself.
"""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vlmtrain.config.build import build
from vlmtrain.config.compose import compose
from vlmtrain.data.collate import Collator, Prepared
from vlmtrain.encoders.vit import VisionTransformer
from vlmtrain.language_models.causal import CausalLanguageModel
from vlmtrain.language_models.seq2seq import Seq2SeqLanguageModel
from vlmtrain.layout import Text, Visual
from vlmtrain.models.vision_language_model import VisionLanguageModel, assemble
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.language_modeling import LanguageModeling
from vlmtrain.training.trainability import set_trainability

CONNECTORS = sorted(path.stem for path in (Path(__file__).parents[1] / "conf" / "model" / "connector").glob("*.yaml"))
WIDTH = 32
SPECIAL = {"vocab_size": 400, "pad_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 2, **SPECIAL}
LANGUAGE_MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "decoder": (
        CausalLanguageModel,
        {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, **SMALL},
    ),
    "encoder-decoder": (
        Seq2SeqLanguageModel,
        {"model_type": "t5", "d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
         "decoder_start_token_id": 1, "dropout_rate": 0.0, **SPECIAL},
    ),
    "state-space": (CausalLanguageModel, {"model_type": "mamba", **SMALL}),
}  # fmt: skip


def make(connector: str, kind: str, tokenizer: str) -> VisionLanguageModel:
    torch.manual_seed(0)
    node = compose([f"model/connector={connector}"]).config["model"]
    shallow = {"every_n_layers": 1, "num_layers": 2}  # the language models here have two layers
    node["fusion"] |= {name: value for name, value in shallow.items() if name in node["fusion"]}
    make_model, architecture = LANGUAGE_MODELS[kind]
    language_model = make_model(architecture=architecture, tokenizer=tokenizer, max_tokens=64)
    encoder = VisionTransformer(image_size=16, patch_size=4, width=WIDTH, depth=1, num_heads=2)
    model = assemble(encoder, language_model, build(node["connector"]), build(node["fusion"]))
    rates: dict[str, float | None] = {"encoder": None, "connector": 1.0, "fusion": 1.0, "language_model": None}
    if next(model.connector.parameters(), None) is None and next(model.fusion.parameters(), None) is None:
        rates["language_model"] = 1.0  # patches as they are: someone else has to learn to read them
    set_trainability(model, rates)
    return model


def samples() -> list[Prepared]:
    tiles = torch.randint(0, 256, (2, 1, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    asked = Text("what is it?", supervised=False)
    return [
        Prepared("one", [Visual(), asked, Text(" a disc")], [tiles[0]]),
        Prepared("two", [Visual(), asked, Text(" a large red square")], [tiles[1]]),
    ]


def tensors(model: VisionLanguageModel) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize(("connector", "kind"), list(product(CONNECTORS, LANGUAGE_MODELS)))
def test_one_step_trains_what_should_and_nothing_else(connector: str, kind: str, byte_tokenizer: str) -> None:
    model = make(connector, kind, byte_tokenizer)
    collator = Collator(model.layout(), model.placeholders_per_item)
    batch, before = collator(samples()), tensors(model)
    loss = LanguageModeling()(model, Context(model.encode(batch.visual), batch))
    sum(loss.totals.values()).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=1.0).step()
    moved = {name for name, value in tensors(model).items() if not torch.equal(value, before[name])}
    assert moved and all(model.get_parameter(name).requires_grad for name in moved)
