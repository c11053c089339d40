"""Broken samples are listed once, and too many of them stop the run (fault matrix F18)."""

import json
from pathlib import Path

import pytest
import torch

from vlmtrain.batch import Batch, TextBatch, VisualBatch
from vlmtrain.data.quarantine import Quarantine


def batch(*broken: tuple[str, int]) -> Batch:
    entries = [
        {"id": name, "source": "shards", "reason": "planted", "position": str(position)} for name, position in broken
    ]
    ids = torch.ones(2, 2, dtype=torch.long)
    return Batch(VisualBatch(ids, [], []), TextBatch(ids, ids > 0, ids < 0), quarantined=entries)


def listed(folder: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def test_every_broken_sample_is_listed_once(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "run", num_samples=2000)
    quarantine.add(batch())
    assert not (tmp_path / "run").exists()
    quarantine.add(batch(("a", 3), ("b", 4), ("a", 7)))
    quarantine.add(batch(("a", 2003)))
    assert listed(tmp_path / "run") == ["a", "b"] and quarantine.count == 2


def test_one_percent_goes_and_more_stops_with_the_file_to_look_at(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, num_samples=2000)
    for epoch in range(10):
        for number in range(20):
            quarantine.add(batch((f"s{number}", epoch * 2000 + number * 100)))
    assert quarantine.count == 20
    with pytest.raises(
        ValueError, match=r"21 different samples.*20 are allowed.*'s20' of shards: planted.*quarantine\.jsonl"
    ):
        quarantine.add(batch(("s20", 20_001)))
    assert len(listed(tmp_path)) == 21, "what stops the run is listed too"


def test_a_large_run_is_judged_by_a_window(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, num_samples=10**6)
    for number in range(1000):
        quarantine.add(batch((f"s{number}", number * 101)))
    assert quarantine.limit == 100
    with pytest.raises(ValueError, match="101 different samples of the last 10000"):
        for number in range(101):
            quarantine.add(batch((f"t{number}", 500_000 + number)))


@pytest.mark.parametrize(("num_samples", "allowed"), [(12, 6), (50, 10), (3, 1), (5000, 50)])
def test_small_data_may_hold_a_few_bad_files(tmp_path: Path, num_samples: int, allowed: int) -> None:
    quarantine = Quarantine(tmp_path, num_samples)
    quarantine.add(batch(*((f"s{number}", number) for number in range(allowed))))
    with pytest.raises(ValueError, match=f"{allowed} are allowed"):
        quarantine.add(batch(("one more", allowed)))


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    first = Quarantine(tmp_path, num_samples=2000)
    first.add(batch(*((f"s{number}", number) for number in range(20))))
    with (tmp_path / "quarantine.jsonl").open("a") as file:
        file.write('{"id": "torn by a ki')
    second = Quarantine(tmp_path, num_samples=2000)
    second.add(batch(("s3", 3)))
    assert second.count == 20
    with pytest.raises(ValueError, match="21 different samples"):
        second.add(batch(("new", 30)))
    third = Quarantine(tmp_path, num_samples=2000)
    with pytest.raises(ValueError, match="21 different samples"):
        third.add(batch(("s3", 3)))
    (tmp_path / "quarantine.jsonl").unlink()
    Quarantine(tmp_path, num_samples=2000).add(batch(("s3", 3)))


def test_ranks_have_files_of_their_own(tmp_path: Path) -> None:
    Quarantine(tmp_path, 2000, rank=1, world_size=2).add(batch(("a", 0)))
    assert (tmp_path / "quarantine.rank1.jsonl").exists() and not (tmp_path / "quarantine.jsonl").exists()
