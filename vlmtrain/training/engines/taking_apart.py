"""From whole weights to the parts that ranks hold, weight by weight: a rank reads its own part, and no more."""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vlmtrain.nn.file_weights import format_of


@dataclass(frozen=True)
class Waiting:
    """A whole weight, in its file or in memory, and where it belongs."""

    module: nn.Module
    name: str
    whole: nn.Parameter


def put_stand_ins(root: nn.Module, left: Collection[nn.Parameter]) -> deque[Waiting]:
    """Take all weights but those `left` out of their modules; what stands there is on the meta device."""
    untouched = {id(parameter) for parameter in left}
    stand_ins: dict[int, nn.Parameter] = {}
    waiting: deque[Waiting] = deque()
    for module in root.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) in untouched:
                continue
            if id(parameter) not in stand_ins:
                shape = torch.empty(parameter.shape, dtype=format_of(parameter), device="meta")
                stand_ins[id(parameter)] = nn.Parameter(shape, requires_grad=parameter.requires_grad)
                waiting.append(Waiting(module, name, parameter))
            setattr(module, name, stand_ins[id(parameter)])
    return waiting


def fill(root: nn.Module, waiting: deque[Waiting], parts: int, part: int, device: torch.device) -> None:
    """Give every sharded stand-in the rows of this `part` of `parts`; each whole weight is forgotten after its turn."""
    filled: dict[int, nn.Parameter] = {}
    while waiting:
        weight = waiting.popleft()
        stand_in = weight.module.get_parameter(weight.name)
        assert isinstance(stand_in, DTensor)
        rows = _rows(weight.whole.detach(), parts, part).to(device, stand_in.dtype, copy=True)
        mesh, placements = stand_in.device_mesh, stand_in.placements
        held = DTensor.from_local(
            rows.contiguous(), mesh, placements, run_check=False, shape=stand_in.shape, stride=stand_in.stride()
        )
        filled[id(stand_in)] = nn.Parameter(held, requires_grad=stand_in.requires_grad)
    for module in root.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(parameter) in filled:
                setattr(module, name, filled[id(parameter)])


def _rows(whole: Tensor, parts: int, part: int) -> Tensor:
    """As FSDP cuts them: the last parts may be shorter, or empty."""
    chunks = whole.chunk(parts)
    return chunks[part] if part < len(chunks) else whole[:0]
