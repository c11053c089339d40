"""Which modules are units."""

from torch import nn

from vlmtrain.config.compose import compose
from vlmtrain.nn.wrapping import find_units
from vlmtrain.shapes import build_on_meta


def units_of(experiment: str, stage: str) -> dict[str, nn.Module]:
    model = build_on_meta(compose([f"experiment={experiment}"]).config["stages"][stage])
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(unit)]: unit for unit in find_units(model)}


def test_layers_and_gated_blocks_are_units_each_of_its_own() -> None:
    units = units_of("flamingo", "documents")
    gated = [name for name in units if name.startswith("fusion.blocks.")]
    layers = [name for name in units if name.startswith("language_model.") and ".layers." in name]
    seen = [name for name in units if name.startswith("encoder.blocks.")]
    assert gated and len(layers) >= len(gated) and seen
    held = [id(parameter) for unit in units.values() for parameter in unit.parameters()]
    assert len(held) == len(set(held)), "no parameter is in two units"


def test_a_unit_inside_another_is_none() -> None:
    class Layers(nn.Module):
        def __init__(self, *layers: nn.Module) -> None:
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def wrapping_units(self) -> nn.ModuleList:
            return self.layers

    inner = Layers(nn.Linear(1, 1))
    outer = Layers(inner, nn.Linear(2, 2))
    assert find_units(outer) == list(outer.layers)
