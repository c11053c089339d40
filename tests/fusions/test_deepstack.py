"""Stacks of visual tokens that enter at several layers."""

import pytest
import torch
from fusion_toy import KINDS, WIDTH, items, logits_of, make_language_model, plain_logits, rows

from vlmtrain.batch import VisualTokens
from vlmtrain.fusions.deepstack import DeepStack
from vlmtrain.fusions.interleave import Interleave


@pytest.mark.parametrize("kind", KINDS)
def test_one_layer_is_interleave(kind: str) -> None:
    language_model, text, visual = make_language_model(kind), rows("tiiit", "iiitiii", "tt"), items(1, 2, 0)
    fusion = DeepStack(WIDTH, 1)
    fusion.install(language_model)
    with torch.no_grad():
        made = logits_of(language_model, fusion, text, visual)
        assert torch.equal(made, logits_of(language_model, Interleave(WIDTH), text, visual))


def test_every_token_enters_at_its_place_and_layer() -> None:
    """Three tokens in stacks of two: (0, 1) and (2, nothing)."""
    language_model, text, visual = make_language_model("opt"), rows("tiit", "tttt"), items(1, 0)
    fusion = DeepStack(WIDTH, 2)
    inputs: list[torch.Tensor] = []
    for number in (0, 1):  # these hooks come before those of the fusion
        language_model.input_layers[number].register_forward_hook(lambda _, args, out: inputs.extend([args[0], out]))
    fusion.install(language_model)
    with torch.no_grad(), fusion.entering(language_model, text, visual) as embeddings:
        words = language_model.embed(text.input_ids)
        torch.testing.assert_close(embeddings[0, 1:3], visual.embeddings[[0, 2]])
        torch.testing.assert_close(embeddings[~text.visual_mask], words[~text.visual_mask])
        language_model.logits(embeddings, text.attention_mask, text.input_ids)
    before, after = inputs[1], inputs[2]
    moved = torch.zeros_like(before)
    moved[0, 1] = visual.embeddings[1]
    torch.testing.assert_close(after - before, moved, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_every_token_is_heard_and_gets_a_gradient(num_layers: int) -> None:
    language_model, visual = make_language_model("llama"), items(2, tokens_per_item=5)
    fusion = DeepStack(WIDTH, num_layers)
    fusion.install(language_model)
    visual.embeddings.requires_grad_()
    text = rows("i" * fusion.placeholders(5) + "t" + "i" * fusion.placeholders(5) + "tt")
    logits_of(language_model, fusion, text, visual)[:, -1].square().sum().backward()
    assert visual.embeddings.grad is not None and (visual.embeddings.grad.abs().amax(-1) > 0).all()


def test_without_items_nothing_changes_and_gradients_are_zeros() -> None:
    language_model, text, visual = make_language_model("llama"), rows("tt", "ttt"), items(0, 0)
    fusion = DeepStack(WIDTH, 3)
    fusion.install(language_model)
    visual.embeddings.requires_grad_()
    made = logits_of(language_model, fusion, text, visual)
    assert torch.equal(made, plain_logits(language_model, text))
    made.sum().backward()
    assert visual.embeddings.grad is not None


def test_mistakes_are_named() -> None:
    language_model = make_language_model("opt")
    with pytest.raises(ValueError, match=r"num_layers 5 .* 4 layers; set model.fusion.num_layers to 4"):
        DeepStack(WIDTH, 5).install(language_model)
    with pytest.raises(ValueError, match="num_layers 0"):
        DeepStack(WIDTH, 0)
    fusion, whole = DeepStack(WIDTH, 2), items(1)
    with (
        pytest.raises(ValueError, match=r"room for 3 stacks .* announced 2 \(3 tokens\)"),
        fusion.entering(language_model, rows("iiit"), whole),
    ):
        pass
    short = VisualTokens(whole.embeddings[:-1], whole.tokens_per_item, whole.items_per_sample)
    with pytest.raises(ValueError, match="made 2 tokens"), fusion.entering(language_model, rows("iit"), short):
        pass
