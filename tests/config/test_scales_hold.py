"""What a scale file says is what is composed: an experiment's own keys win over its scale, and nobody would notice."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from vlmtrain.config.compose import compose
from vlmtrain.config.stored import flatten

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
SCALES = sorted(path for path in (CONF / "scale").glob("*/*.yaml") if path.parent.name in EXPERIMENTS)


def leaves(node: Any, place: str = "") -> dict[str, Any]:
    """Dotted key -> value of what a file says itself, plain values only: others may refer to something."""
    if isinstance(node, dict):
        return {key: value for name, each in node.items() for key, value in leaves(each, f"{place}.{name}").items()}
    return {} if isinstance(node, list) or (isinstance(node, str) and "$" in node) else {place[1:]: node}


@pytest.mark.parametrize("file", SCALES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_nothing_of_it_is_lost(file: Path) -> None:
    said = {name: node for name, node in OmegaConf.to_container(OmegaConf.load(file)).items() if name == "stages"}
    composed = flatten(compose([f"experiment={file.parent.name}", f"scale={file.stem}"]).config)
    lost = {key: (value, composed.get(key)) for key, value in leaves(said).items() if composed.get(key, value) != value}
    assert not lost, "the experiment says otherwise, and wins; leave the key to the scale files"
