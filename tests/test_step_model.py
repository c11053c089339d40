"""The model of a step: what must be so whatever the machine."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def load() -> ModuleType:
    file = Path(__file__).resolve().parents[1] / "benchmarks" / "step_model.py"
    spec = importlib.util.spec_from_file_location("step_model", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["step_model"] = module
    spec.loader.exec_module(module)
    return module


model = load()
WORK = model.Work(samples=16, flops_per_sample=1e9, gradient_bytes=8e6, weight_bytes=4e7)
MACHINE = model.Machine(flops_per_second=1e11, link=1e9, network=1e8, latency=0.0, per_node=2)


@pytest.mark.parametrize("engine", sorted(model.TRAFFIC))
def test_alone_a_step_is_its_arithmetic(engine: str) -> None:
    step = model.predict(engine, WORK, MACHINE, 1)
    assert step.seconds == step.compute == pytest.approx(16 * 1e9 / 1e11) and step.collectives == 0


def test_a_gradient_goes_round_twice_and_weights_as_well_where_they_are_shared() -> None:
    """Two of 8 MB at half through a link of 1 GB/s; with shared weights two of 40 MB and one of 8 MB."""
    assert model.predict("ddp", WORK, MACHINE, 2).collectives == pytest.approx(2 * 0.5 * 8e6 / 1e9)
    assert model.predict("fsdp2", WORK, MACHINE, 2).collectives == pytest.approx(0.5 * (2 * 4e7 + 8e6) / 1e9)


def test_across_machines_the_network_counts() -> None:
    assert model.ring_seconds(1e8, MACHINE, 4) == pytest.approx(0.75)
    assert model.ring_seconds(1e8, MACHINE, 2) == pytest.approx(0.05)


def test_processes_crowd_each_other_and_data_is_waited_for() -> None:
    crowded = model.Machine(1e11, 1e9, 1e8, 0.0, per_node=4, crowding=2.5)
    assert model.predict("ddp", WORK, crowded, 4).compute == pytest.approx(2.5 * 0.16)
    slow_data = model.Machine(1e11, 1e9, 1e8, 0.0, per_node=4, samples_per_second=20.0)
    assert model.predict("ddp", WORK, slow_data, 1).seconds == pytest.approx(16 / 20)


@given(st.sampled_from(sorted(model.TRAFFIC)), st.integers(1, 512), st.floats(0, 1))
@settings(deadline=None)
def test_more_processes_never_make_a_step_shorter_and_overlap_never_longer(
    engine: str, count: int, overlap: float
) -> None:
    one = model.predict(engine, WORK, MACHINE, count, overlap)
    assert model.predict(engine, WORK, MACHINE, count + 1, overlap).seconds >= one.seconds - 1e-12
    assert one.seconds <= model.predict(engine, WORK, MACHINE, count).seconds + 1e-12
    assert one.exposed <= one.collectives


def test_what_is_unknown_is_told() -> None:
    with pytest.raises(ValueError, match=r"engine 'fsdp1' is unknown; known are ddp"):
        model.predict("fsdp1", WORK, MACHINE, 2)
    with pytest.raises(ValueError, match="give 1 or more"):
        model.predict("ddp", WORK, MACHINE, 0)
