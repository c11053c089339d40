"""A folder with something wrong in every way that a folder of photographs is: it trains, and nothing is hidden."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
NO_WIDTH = "\u200b"  # not empty, and no word for BERT


def write_folder(folder: Path, num_good: int = 20) -> None:
    """Good pictures, and after them half a JPEG, no picture at all, a bomb, three bad captions and a long one."""
    folder.mkdir()
    lines = []
    for number in range(num_good + 7):
        picture = Image.new("RGB", (60 + number, 48), "grey")
        ImageDraw.Draw(picture).ellipse([10, 10, 40, 40], fill=(9 * number, 255 - 9 * number, 128))
        picture.save(folder / f"{number}.jpg")
        lines.append({"image": f"{number}.jpg", "caption": f"a disc number {number}"})
    half, none, bomb, missing, wordless, empty, long = range(num_good, num_good + 7)
    whole = (folder / f"{half}.jpg").read_bytes()
    (folder / f"{half}.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / f"{none}.jpg").write_bytes(b"<html>404</html>")
    Image.new("1", (9_000, 9_000)).save(folder / f"{bomb}.jpg", format="PNG")
    (folder / f"{missing}.jpg").unlink()
    lines[wordless]["caption"] = NO_WIDTH
    lines[empty]["caption"] = "   "
    lines[long]["caption"] = "a red circle left of a blue square and " * 40
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def vlmtrain(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlmtrain.main", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_a_folder_with_every_fault_trains_and_every_fault_is_counted(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    data = ["data=pairs", "data.path=photos", "data.held_out=0"]
    typed = ["experiment=pretrain_vit", "stages=[contrastive]", *data, "run_dir=run"]
    short = ["trainer.max_steps=4", "trainer.batch_size=9", "trainer.num_workers=0", "optimizer.warmup=0"]
    every_split = [f"stages.contrastive.evaluation.{name}.split=null" for name in ("test", "compositional")]
    quiet = [*every_split, "trainer.log_every=1"]
    done = vlmtrain(*typed, *short, *quiet, folder=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    listed = (tmp_path / "run/logs/contrastive/quarantine.jsonl").read_text().splitlines()
    reasons = {Path(entry["id"]).stem: entry["reason"] for entry in map(json.loads, listed)}
    assert sorted(reasons) == ["20", "21", "22", "23", "24", "25"], reasons
    assert "does not decode" in reasons["20"] and "not a JPEG" in reasons["21"] and "image bomb" in reasons["22"]
    assert "Nothing to learn" in reasons["24"] and "no caption" in reasons["25"]
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert sum(row["metrics"]["truncated_texts"] for row in rows) >= 1, "the long caption was cut, and counted"
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["stages"][0]["quarantined"] == 6 and summary["stages"][0]["steps"] == 4
    # the same run folder, another configuration
    changed = vlmtrain(*typed, *short, *quiet, "optimizer.lr=0.1", folder=tmp_path)
    assert changed.returncode == 2 and "optimizer.lr: " in changed.stderr and "--fresh" in changed.stderr
    # more samples in a batch than there are
    larger = [*typed[:-1], "run_dir=larger", *short[:1], "trainer.batch_size=99", *short[2:], *quiet]
    too_large = vlmtrain(*larger, folder=tmp_path)
    assert too_large.returncode == 2 and "99 samples and the data has 27" in too_large.stderr
