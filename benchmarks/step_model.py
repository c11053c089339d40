"""How long a step takes on N processes: compute, collectives and data, from a handful of measured numbers.

A collective among n processes goes round a ring: (n - 1)/n of the bytes through each link, and n - 1 times the latency
(Thakur et al. 2005, "Optimization of collective communication operations in MPICH").  It hides behind compute as far as
the engine overlaps it.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """One step of one process."""

    samples: int
    flops_per_sample: float
    gradient_bytes: float  # of everything that trains
    weight_bytes: float  # of everything that an engine may share out, frozen parts included


@dataclass(frozen=True)
class Machine:
    """What a process has, `per_node` of them on a machine."""

    flops_per_second: float  # that a step reaches, not those of the data sheet
    link: float  # bytes a second between processes of one machine
    network: float  # bytes a second that each process gets between machines
    latency: float  # seconds of one hop
    per_node: int
    crowding: float = 1.0  # how much longer the same arithmetic takes beside the other processes of the machine
    samples_per_second: float | None = None  # that the data of one process gives; None: never waited for


RingPasses = Callable[[Work], list[float]]

# Engine -> bytes that go round the ring in a step: a pass gathers or reduces that much.
TRAFFIC: dict[str, RingPasses] = {
    "ddp": lambda work: [work.gradient_bytes] * 2,
    "fsdp2": lambda work: [work.weight_bytes, work.weight_bytes, work.gradient_bytes],
    "deepspeed_zero1": lambda work: [work.gradient_bytes] * 2,
    "deepspeed_zero2": lambda work: [work.gradient_bytes] * 2,
    "deepspeed_zero3": lambda work: [work.weight_bytes, work.weight_bytes, work.gradient_bytes],
}


@dataclass(frozen=True)
class Step:
    """Seconds of a step, and where they go."""

    compute: float
    collectives: float  # all of them, hidden or not
    exposed: float  # what of them the step waits for
    data: float  # waiting for batches

    @property
    def seconds(self) -> float:
        return self.compute + self.exposed + self.data


def predict(engine: str, work: Work, machine: Machine, processes: int, overlap: float = 0.0) -> Step:
    """A step on `processes` processes; `overlap`: the share of compute behind which collectives can hide."""
    if engine not in TRAFFIC:
        raise ValueError(f"engine {engine!r} is unknown; known are {', '.join(TRAFFIC)}")
    if processes < 1:
        raise ValueError(f"{processes} processes; give 1 or more")
    compute = machine.crowding * work.samples * work.flops_per_sample / machine.flops_per_second
    collectives = sum(ring_seconds(size, machine, processes) for size in TRAFFIC[engine](work))
    exposed = max(0.0, collectives - overlap * compute)
    data = 0.0
    if machine.samples_per_second is not None:
        data = max(0.0, work.samples / machine.samples_per_second - compute - exposed)
    return Step(compute, collectives, exposed, data)


def ring_seconds(size: float, machine: Machine, processes: int) -> float:
    """One pass of `size` bytes round a ring; the slowest link counts."""
    if processes == 1:
        return 0.0
    bandwidth = machine.link if processes <= machine.per_node else min(machine.link, machine.network)
    return (processes - 1) / processes * size / bandwidth + (processes - 1) * machine.latency
