"""Do all ranks run the same?  One of another config, code or library trains along and ruins the rest quietly."""

import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch.distributed
from accelerate import Accelerator

import vlmtrain

LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed", "tokenizers", "safetensors", "numpy", "pillow")
SHOWN = 8


def facts_of_this_process(config: dict[str, Any]) -> dict[str, str]:
    """Everything that must be the same on all ranks: "config seed" -> "0", "code run.py" -> a hash.

    `config`: dotted key -> value.
    """
    package = Path(vlmtrain.__file__).parent
    facts = {f"config {key}": json.dumps(value, default=str) for key, value in config.items()}
    for file in sorted(package.rglob("*.py")):
        facts[f"code {file.relative_to(package)}"] = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    facts["python"] = platform.python_version()
    return facts | {f"version of {name}": _version(name) for name in LIBRARIES}


def require_agreement(accelerator: Accelerator, facts: dict[str, str]) -> None:
    """ValueError on all ranks, naming what differs, where any of them started with other facts than rank 0."""
    if accelerator.num_processes == 1:
        return
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()[:8]
    own = torch.tensor([int.from_bytes(digest, "big", signed=True)], device=accelerator.device)
    everywhere = accelerator.gather(own)
    if bool((everywhere == everywhere[0]).all()):
        return
    all_facts: list[dict[str, str]] = [{} for _ in range(accelerator.num_processes)]
    torch.distributed.all_gather_object(all_facts, facts)
    told = [
        f"rank {rank}: {difference}"
        for rank, other in enumerate(all_facts)
        for difference in describe_differences(all_facts[0], other)
    ]
    more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    raise ValueError(
        f"ranks did not start with the same: {'; '.join(told[:SHOWN])}{more}. "
        "Give all machines the same code, libraries and run folder."
    )


def describe_differences(first: dict[str, str], other: dict[str, str]) -> list[str]:
    """'config seed is 1, and 0 on rank 0' for each fact that is not as on rank 0."""
    return [
        f"{name} is {other.get(name, 'absent')}, and {first.get(name, 'absent')} on rank 0"
        for name in dict.fromkeys([*first, *other])
        if first.get(name) != other.get(name)
    ]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"
