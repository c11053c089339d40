"""Which modules are units."""

from torch import nn

from vlmtrain.config.compose import compose
from vlmtrain.nn.wrapping import count_largest_unit, find_outside, find_units
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
    read = [name for name in units if name.startswith("connector.layers.")]
    assert gated and len(layers) >= len(gated) and seen and read
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


def test_what_is_in_no_unit_and_how_large_a_unit_is() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 5)])
            self.head = nn.Linear(5, 7, bias=False)
            self.head.tied = self.layers[0].weight  # type: ignore[assignment]

        def wrapping_units(self) -> nn.ModuleList:
            return self.layers

    model = Model()
    assert [id(parameter) for parameter in find_outside(model)] == [id(model.head.weight)], (
        "tied ones are in their unit"
    )
    assert count_largest_unit(model) == 3 * 5 + 5
    alone = nn.Linear(4, 4)
    assert find_outside(alone) == list(alone.parameters())
    assert count_largest_unit(alone) == 4 * 4 + 4
