"""Alignment of words with patches beside matching, against a reference that is written out pair by pair."""

import pytest
import torch
import torch.nn.functional as F

from vlmtrain.nn.optimal_transport import transport_plan
from vlmtrain.objectives.base import Context
from vlmtrain.objectives.replaced_pairs import ReplacedPairs
from vlmtrain.objectives.word_patch_alignment import WordPatchAlignment


def test_true_pairs_are_drawn_together_and_wrong_ones_apart(make_joint, batch_of):
    """ViLT's sum: the transport costs of true pairs less those of wrong ones; [CLS], [SEP] and padding take no part."""
    model, batch = make_joint(), batch_of(6)
    features = model.encode(batch.visual)
    objective = WordPatchAlignment(ReplacedPairs(), weight=0.1)
    context = Context(features, batch)
    loss = objective(model, context)
    pairs = objective.matching.pairs(model, context)
    wanted, of_true = torch.zeros(()), []
    for row in range(6):
        length = int(pairs.text.attention_mask[row].sum())
        states = model.read(features, pairs.text, torch.arange(6))
        words, patches = states.text[row, 1 : length - 1], states.image[row]  # this encoder has no class token
        cost = 1 - F.cosine_similarity(words.unsqueeze(1), patches.unsqueeze(0), dim=-1)
        everything = [torch.ones(1, count, dtype=torch.bool) for count in cost.shape]
        distance = (cost * transport_plan(cost.unsqueeze(0), *everything)[0]).sum()
        is_true = bool(pairs.is_match[row])
        wanted = wanted + (distance if is_true else -distance)
        of_true += [float(distance.detach())] if is_true else []
    torch.testing.assert_close(loss.totals["alignment"], wanted)
    total, count = loss.metrics["true_cost"]
    assert float(count) == len(of_true) == 3 and float(total) == pytest.approx(sum(of_true), abs=1e-5)
    assert loss.metrics["wrong_cost"][1] == 3
    alone = ReplacedPairs()(model, context)
    torch.testing.assert_close(loss.totals["matching"], alone.totals["matching"])
    assert loss.metrics["accuracy"] == alone.metrics["accuracy"]


def test_one_pass_serves_matching_and_alignment(make_joint, batch_of):
    model, batch = make_joint(), batch_of(4)
    passes = []
    model.stream.register_forward_hook(lambda *_: passes.append(1))
    WordPatchAlignment(ReplacedPairs())(model, Context(model.encode(batch.visual), batch))
    assert len(passes) == 1


def test_a_class_token_of_the_image_is_not_aligned(make_joint, batch_of):
    model, batch = make_joint(), batch_of(3)
    features = model.encode(batch.visual)
    assert model.align(features, batch.text, torch.arange(3)).patch_mask.all()
    model.encoder.keep_class_token = True
    found = model.align(features, batch.text, torch.arange(3))
    assert (found.patch_mask == torch.tensor([False, True, True, True])).all()
    lengths = batch.text.attention_mask.sum(1)
    assert torch.equal(found.word_mask.sum(1), lengths - 2) and not found.word_mask[:, 0].any()
    torch.testing.assert_close(found.logits, model.match(features, batch.text, torch.arange(3)))


def test_each_half_can_be_off(make_joint, batch_of, step_of):
    model, batch = make_joint(), batch_of(4)
    without = WordPatchAlignment(ReplacedPairs(), weight=0)
    assert without.weights() == {"matching": 1} and without.counts(batch) == {"matching": 4}
    assert step_of(model, without, batch).totals.keys() == {"matching"}
    alone = WordPatchAlignment(ReplacedPairs(weight=0))
    assert alone.weights() == {"alignment": 0.1} == {name: 0.1 for name in alone.counts(batch)}
    assert step_of(model, alone, batch, 2).totals.keys() == {"alignment"}
    with pytest.raises(ValueError, match="beta=0"):
        WordPatchAlignment(ReplacedPairs(), beta=0)
