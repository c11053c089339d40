"""T54: image encoder, connector with its fusion, and language model are groups of their own, and combine freely.

Every file of conf/model/*/ is found by itself.  Parts are built as shapes (meta device), each once.
"""

import functools
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vlmtrain.batch import VisualFeatures
from vlmtrain.config.build import build
from vlmtrain.config.check import check
from vlmtrain.config.compose import compose
from vlmtrain.config.faults import ConfigError

GROUPS = ("encoder", "connector", "language_model")
FOLDER = Path(__file__).parents[1] / "conf" / "model"
OPTIONS = {group: sorted(path.stem for path in (FOLDER / group).glob("*.yaml")) for group in GROUPS}


def choose(**chosen: str) -> dict[str, Any]:
    """The model node of a configuration in which these options are typed."""
    model: dict[str, Any] = compose([f"model/{group}={name}" for group, name in chosen.items()]).config["model"]
    return model


@functools.cache
def part(group: str, name: str) -> Any:
    """One part by itself: a module of shapes, or for connectors the nodes of connector and fusion, made to measure."""
    model = choose(**{group: name})
    with torch.device("meta"):
        return [build(model["connector"]), build(model["fusion"])] if group == "connector" else build(model[group])


def between(encoder: str, connector: str, language_model: str) -> tuple[Any, Any, Any, Any]:
    """Encoder, connector, fusion and language model, as `assemble` would put them together."""
    sees, writes = part("encoder", encoder), part("language_model", language_model)
    connects, fuses = part("connector", connector)
    with torch.device("meta"):
        return sees, connects(sees.width, sees.patches_per_tile, writes.width), fuses(writes.width), writes


@pytest.mark.parametrize(("encoder", "connector", "language_model"), list(product(*OPTIONS.values())))
def test_t54_every_combination_builds_or_names_what_does_not_fit(
    encoder: str, connector: str, language_model: str
) -> None:
    try:
        sees, connects, fusion, writes = between(encoder, connector, language_model)
    except ValueError as refusal:
        assert names_a_pair(str(refusal), encoder, connector, language_model)
        return
    assert isinstance(connects, nn.Module) and isinstance(fusion, nn.Module)
    tiles = [1, 2]
    with torch.device("meta"):
        patches = torch.empty(sum(tiles), sees.patches_per_tile, sees.width)
        tokens = connects(VisualFeatures(patches, tiles, [len(tiles)]))
    assert tokens.tokens_per_item == [connects.tokens_per_item(count) for count in tiles]
    assert tokens.embeddings.shape == (sum(tokens.tokens_per_item), writes.width)


def names_a_pair(refusal: str, encoder: str, connector: str, language_model: str) -> bool:
    """Both numbers that do not fit, or the number of patches that have no grid; and another connector to take."""
    sees, writes = part("encoder", encoder), part("language_model", language_model)
    chosen = choose(connector=connector)["connector"]
    numbers = {value for value in chosen.values() if isinstance(value, int) and not isinstance(value, bool)}
    pairs = [{sees.width, writes.width}, *({sees.patches_per_tile, number} for number in numbers)]
    written = {int(digits) for digits in re.findall(r"\d+", refusal)}
    has_no_grid = "no square grid" in refusal and sees.patches_per_tile in written
    fits_not = any(pair <= written for pair in pairs if len(pair) == 2)
    return "model/connector=" in refusal and (has_no_grid or fits_not)


@pytest.mark.parametrize("connector", OPTIONS["connector"])
def test_t54_every_connector_fits_something(connector: str) -> None:
    def fits(encoder: str, language_model: str) -> bool:
        try:
            return bool(between(encoder, connector, language_model))
        except ValueError:
            return False

    assert any(fits(*others) for others in product(OPTIONS["encoder"], OPTIONS["language_model"]))


@pytest.mark.parametrize("group", GROUPS)
def test_t54_a_choice_in_one_group_leaves_the_others_as_they_were(group: str) -> None:
    """So that the parts built one by one above are those of any combination."""
    others = [other for other in GROUPS if other != group]
    first = {other: OPTIONS[other][0] for other in others}
    chosen = [choose(**{group: name}, **first) for name in OPTIONS[group]]
    for other in others:
        assert all(model[other] == chosen[0][other] for model in chosen)
    for name, model in zip(OPTIONS[group], chosen, strict=True):
        assert model[group] == choose(**{group: name})[group]


@pytest.mark.parametrize("connector", OPTIONS["connector"])
def test_t54_what_does_not_fit_an_experiment_is_named_with_what_it_does_not_fit(connector: str) -> None:
    """BLIP-2's first stage trains a Q-Former; the second one alone takes any connector."""
    typed = ["experiment=blip2_opt", "scale=small", "data=pairs", "data.path=photos", f"model/connector={connector}"]
    if "qformer" in choose(connector=connector)["connector"]:
        check(compose(typed))
        return
    with pytest.raises(ConfigError, match=r"(?s)stages\.representation\.model\.qformer.*model\.connector\.qformer"):
        check(compose(typed))
    alone = compose([*typed, "run_stages=[language]", "stages.language.start_from=null"])
    check(alone)
    assert list(alone.config["stages"]) == ["language"]


def test_t54_an_objective_names_what_a_model_lacks() -> None:
    from vlmtrain.objectives.contrastive import Contrastive

    with pytest.raises(ValueError, match=r"Contrastive needs a model with .*embed_text.*; Linear lacks .*embed_text"):
        Contrastive().require(nn.Linear(1, 1))
