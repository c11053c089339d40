"""Classes told by their names: what a class's column is made of, and what it does not depend on."""

import pytest
import torch
import torch.nn.functional as F
from classes_toy import Spelling, Toy, TwoTables, shown, tools_of

from vlmtrain.evaluation.classification import Classification
from vlmtrain.evaluation.zero_shot import ZeroShot, class_weights, zero_shot_logits
from vlmtrain.layout import Text

CLASSES = ["red ring", "blue star", "circle", "green thing of many words"]
TEMPLATES = ["a {}", "here is a {}", "{} on a ground"]
CPU = torch.device("cpu")


def weights_of(model: TwoTables, classes: list[str], templates: list[str] = TEMPLATES) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return class_weights(model, classes, templates, Spelling(), CPU)


@pytest.fixture
def model() -> TwoTables:
    return TwoTables(torch.randn(5, 1, 6, generator=torch.Generator().manual_seed(1)), 6)


def test_t16_a_class_is_the_mean_of_the_unit_vectors_of_its_sentences(model: TwoTables) -> None:
    weights = weights_of(model, CLASSES)
    assert weights.shape == (4, 6)
    for name, weight in zip(CLASSES, weights, strict=True):
        sentences = [[Text(template.format(name))] for template in TEMPLATES]
        vectors = torch.stack([model.embed_text(Spelling().write([row], lambda tiles: 0))[0] for row in sentences])
        torch.testing.assert_close(weight, F.normalize(vectors.mean(0), dim=0), atol=1e-6, rtol=0)
    assert not torch.allclose(weights, weights_of(model, CLASSES, TEMPLATES[:1]), atol=1e-3)


def test_t16_adding_a_class_only_adds_a_column_and_permuting_permutes(model: TwoTables) -> None:
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    queries = model.images.detach()
    few = zero_shot_logits(queries, weights_of(model, CLASSES[:3]))
    more = zero_shot_logits(queries, weights_of(model, CLASSES))
    assert few.shape == (5, 3) and torch.equal(more[:, :3], few)
    order = [2, 0, 3, 1]
    permuted = zero_shot_logits(queries, weights_of(model, [CLASSES[place] for place in order]))
    assert torch.equal(permuted, more[:, order])
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_t16_the_prediction_is_the_largest_cosine_and_the_best_of_several_vectors_counts(model: TwoTables) -> None:
    weights = weights_of(model, CLASSES)
    queries = F.normalize(torch.randn(7, 3, 6, generator=torch.Generator().manual_seed(2)), dim=-1)
    logits = zero_shot_logits(queries, weights)
    cosines = F.cosine_similarity(queries.unsqueeze(2), weights.view(1, 1, 4, 6), dim=-1)
    torch.testing.assert_close(logits, cosines.amax(1), atol=1e-6, rtol=0)
    assert torch.equal(logits.argmax(1), cosines.amax(1).argmax(1))


def test_t16_a_toy_set_reaches_the_expected_accuracy(model: TwoTables) -> None:
    """Images 0 to 3 lie where their class's name lies, image 4 at the third's."""
    with torch.no_grad():
        model.images.copy_(weights_of(model, CLASSES)[[0, 1, 2, 3, 2]].unsqueeze(1))
    right = list(enumerate(CLASSES))
    data = Toy(CLASSES, [], {"test": shown(*right, (4, CLASSES[0])), "named": shown((0, CLASSES[1]))}, TEMPLATES)
    model.train()
    found = Classification(data, {"zero_shot": ZeroShot()})(model, {}, tools_of()).metrics
    assert found["test/zero_shot_accuracy"] == pytest.approx(4 / 5)
    assert found["named/zero_shot_accuracy"] == 0.0
    assert found["test/chance_zero_shot_accuracy"] == 1 / 4 and found["test/num_images"] == 5
    assert model.training, "the mode of the model comes back"


def test_a_template_wants_one_place_for_the_name() -> None:
    with pytest.raises(ValueError, match=r"one \{\} each"):
        ZeroShot(["a thing"])
    with pytest.raises(ValueError, match=r"one \{\} each"):
        ZeroShot([])
