"""What is kept of a finished stage.  Its presence says that the stage is done: a later start need not build it."""

import base64
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlmtrain.evaluation.base import SampleOutcome
from vlmtrain.tracking.jsonl import read_numbers, write_atomically, write_numbers

FOLDER = "results"  # <run>/results/<stage>.json


@dataclass(frozen=True)
class StageResult:
    """What came of a stage."""

    name: str
    steps: int
    samples: int
    seconds: float  # of training
    trainable_parameters: int
    total_parameters: int
    metrics: dict[str, float]  # of its last training row
    evaluation: dict[str, float]
    skipped_steps: int = 0
    truncated_texts: int = 0
    quarantined: int = 0
    data: str = ""  # fingerprint
    outcomes: list[SampleOutcome] = field(default_factory=list)  # what the sample page shows

    def check_data(self, run: Path, fingerprint: str) -> None:
        """ValueError where the data is not what this stage was trained on."""
        if self.data and self.data != fingerprint:
            raise ValueError(
                f"stage {self.name} in {run} was trained on other data (data {self.data[:12]} then, "
                f"{fingerprint[:12]} now); give the same data, or start over with --fresh"
            )


def read_result(run: Path, name: str) -> StageResult | None:
    """The result of stage `name`, or None where it is not done."""
    file = run / FOLDER / f"{name}.json"
    if not file.exists():
        return None
    plain: dict[str, Any] = json.loads(file.read_text())
    plain["metrics"], plain["evaluation"] = read_numbers(plain["metrics"]), read_numbers(plain["evaluation"])
    plain["outcomes"] = [SampleOutcome(**_with_images(outcome, _from_text)) for outcome in plain["outcomes"]]
    return StageResult(**plain)


def write_result(run: Path, result: StageResult) -> None:
    """Writes it whole or not at all."""
    plain = asdict(result)
    plain["metrics"], plain["evaluation"] = write_numbers(result.metrics), write_numbers(result.evaluation)
    plain["outcomes"] = [_with_images(outcome, _to_text) for outcome in plain["outcomes"]]
    (run / FOLDER).mkdir(exist_ok=True)
    write_atomically(run / FOLDER / f"{result.name}.json", json.dumps(plain, indent=1) + "\n")


def _with_images(outcome: dict[str, Any], convert: Any) -> dict[str, Any]:
    return {
        key: convert(value) if key.endswith("image") and value is not None else value for key, value in outcome.items()
    }


def _to_text(image: bytes) -> str:
    return base64.b64encode(image).decode()


def _from_text(image: str) -> bytes:
    return base64.b64decode(image)
