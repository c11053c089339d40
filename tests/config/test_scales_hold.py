"""What a scale file says is what is composed: an experiment's own keys win over its scale, and nobody would notice."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vlmtrain.config.compose import compose
from vlmtrain.config.stored import flatten

CONF = Path(__file__).resolve().parents[2] / "conf"
EXPERIMENTS = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
SCALES = sorted(path for path in (CONF / "scale").glob("*/*.yaml") if path.parent.name in EXPERIMENTS)


@pytest.mark.parametrize("file", SCALES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_nothing_of_it_is_lost(file: Path) -> None:
    written = OmegaConf.to_container(OmegaConf.load(file))
    said = flatten({"stages": written.get("stages", {})})
    composed = flatten(compose([f"experiment={file.parent.name}", f"scale={file.stem}"]).config)
    lost = {
        key: (value, composed[key])
        for key, value in said.items()
        if key in composed and composed[key] != value and "$" not in str(value)  # a reference is replaced
    }
    assert not lost, "the experiment says otherwise, and wins; leave the key to the scale files"
