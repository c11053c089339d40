"""`summary.json`: one run in one small file, for people and for programs that compare runs."""

import json
import logging
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from vlmtrain.tracking.jsonl import to_strict_json, write_atomically

logger = logging.getLogger(__name__)

_PACKAGES = ("vlmtrain", "torch", "transformers", "accelerate", "hydra-core", "datasets", "open_clip_torch", "timm")


@dataclass(frozen=True)
class StageSummary:
    """One stage that was run to its end."""

    name: str
    steps: int
    samples: int
    seconds: float  # of training, over all processes that worked on it one after the other
    samples_per_second: float
    metrics: Mapping[str, float]  # of its last training row and of its evaluations
    skipped_steps: int = 0
    truncated_texts: int = 0
    quarantined: int = 0


@dataclass(frozen=True)
class RunSummary:
    """What `summary.json` holds.  Only `seconds`, speeds and memory differ between two runs with the same seed."""

    experiment: str
    scale: str
    state: str  # "done", "stopped"
    stages: Sequence[StageSummary]
    metrics: Mapping[str, float]  # of the final evaluation
    trainable_parameters: int  # of the last stage
    total_parameters: int
    seconds: float
    samples_per_second: float
    peak_memory_bytes: int
    command: str = ""
    seed: int = 0
    device: str = ""
    num_processes: int = 1
    engine: str | None = None  # how they shared weights and gradients; None: one process
    engine_reason: str | None = None  # where it was chosen by distributed=auto
    resumed: int = 0  # how often
    versions: Mapping[str, str] = field(default_factory=dict)
    git_revision: str | None = None


def write_summary(path: Path, summary: RunSummary) -> None:
    """Writes the file atomically; numbers that are not finite become strings as in `metrics.jsonl`."""
    text = json.dumps(to_strict_json(asdict(summary)), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")


def read_summary(path: Path) -> dict[str, Any]:
    """The file as plain data.  ValueError where it is none."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no run summary: {error}. Name a run folder whose run has ended.") from error
    if not isinstance(summary, dict) or "stages" not in summary:
        raise ValueError(f"{path} is no run summary: it has no stages. Name a run folder whose run has ended.")
    return summary


def find_versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str]:
    """Package -> version, of those that are installed, and Python's own; imports none of them."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            logger.debug("The package %s is not installed.", package)
    return versions


def find_git_revision(folder: Path | None = None) -> str | None:
    """The revision of the source tree of vlmtrain, with `-dirty` where files differ; None outside a git checkout."""
    folder = Path(__file__).resolve().parents[2] if folder is None else folder
    if not (folder / ".git").exists():
        return None
    revision = _ask_git(folder, "rev-parse", "HEAD")
    if revision is None:
        return None
    return f"{revision}-dirty" if _ask_git(folder, "status", "--porcelain", "--untracked-files=no") else revision


def _ask_git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("git %s gives no answer: %s", " ".join(arguments), error)
        return None
    return answer.stdout.strip()
