"""Videos on disk: which frames are taken."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlmtrain.data.decode import decode_image
from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.videos import Videos


def write(folder: Path, *lines: dict) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "videos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def animate(path: Path, num_frames: int, milliseconds: int | list[int]) -> None:
    """Frame n is grey of brightness n."""
    frames = [Image.new("RGB", (6, 4), (number,) * 3) for number in range(num_frames)]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=milliseconds, **options)


def numbers(images: list[bytes]) -> list[int]:
    return [int(decode_image(image, 10**6, 1)[0, 0, 0]) for image in images]


def test_t41_ten_seconds_at_25_fps_are_ten_frames(tmp_path: Path) -> None:
    for number in range(250):
        Image.new("RGB", (2, 2), (number,) * 3).save(tmp_path / f"{number}.png")
    animate(tmp_path / "clip.gif", 250, 40)
    frames = [f"{number}.png" for number in range(250)]
    lines = [{"frames": frames, "fps": 25, "caption": "x", "id": "a"}, {"video": "clip.gif", "caption": "y"}]
    source = Videos(write(tmp_path, *lines))
    assert isinstance(source, Source)
    assert numbers(source.read(0).images) == numbers(source.read(1).images) == list(range(0, 250, 25))
    assert [source.key(0), source.key(1)] == ["a", "videos/1"] and source.read(1).captions == ["y"]
    assert len(Videos(str(tmp_path), frames_per_second=2).read(0).images) == 20


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_frames_of_unequal_length(tmp_path: Path, suffix: str) -> None:
    animate(tmp_path / f"clip{suffix}", 4, [500, 2600, 400, 100])  # over at 0.5, 3.1, 3.5 and 3.6 s
    source = Videos(write(tmp_path, {"video": f"clip{suffix}", "caption": "x"}))
    assert numbers(source.read(0).images) == [0, 1, 1, 1]
    assert numbers(Videos(str(tmp_path), frames_per_second=5).read(0).images)[-4:] == [1, 1, 2, 2]  # 2.8 to 3.4 s


def test_an_image_is_the_one_frame_case(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "one.png")
    source = Videos(write(tmp_path, {"video": "one.png", "caption": "x"}, {"frames": ["one.png"], "fps": 25}))
    assert numbers(source.read(0).images) == numbers(source.read(1).images) == [9]


@given(st.integers(1, 400), st.sampled_from([1, 5, 12.5, 23.976, 25, 29.97, 30]), st.sampled_from([0.5, 1, 2]))
def test_frames_are_in_the_video_in_order_and_as_many_as_seconds(count: int, fps: float, rate: float) -> None:
    source = Videos.__new__(Videos)
    source.frames_per_second, source.max_sampled = rate, 10**6
    times = source._times(count / fps, "k")
    wanted = [int(time * fps + 1e-9) for time in times]
    assert wanted[0] == 0 and wanted == sorted(wanted) and wanted[-1] < count
    assert len(times) == max(1, int(np.ceil(round(count * rate / fps, 6))))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"caption": "x"}, 'either "frames"'),
        ({"frames": ["a.jpg"], "video": "a.gif"}, 'either "frames"'),
        ({"frames": []}, "one image or more"),
        ({"frames": ["a.jpg"], "fps": 0}, '"fps" must be'),
        ({"video": "a.m3u8"}, "no decoder for 'a.m3u8'.*ffmpeg"),
        ({"frames": ["/a.jpg"]}, "outside the folder"),
    ],
)
def test_what_is_wrong_with_a_line_is_named_at_the_start(tmp_path: Path, line: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=f"line 1: .*{reason}"):
        Videos(write(tmp_path, line))


def test_what_is_wrong_with_a_video_breaks_it_alone(tmp_path: Path) -> None:
    held = io.BytesIO()
    Image.new("RGB", (8, 8)).save(held, format="GIF")
    (tmp_path / "half.gif").write_bytes(held.getvalue()[:20])
    (tmp_path / "page.gif").write_bytes(b"<html>")
    animate(tmp_path / "long.gif", 3, 60_000)
    lines = [{"video": name} for name in ("half.gif", "page.gif", "none.gif", "long.gif")]
    source = Videos(write(tmp_path, *lines), max_sampled=100)
    for index, reason in enumerate(["does not decode", "does not decode", "no such file", "180 frames, above"]):
        with pytest.raises(BrokenSample, match=reason):
            source.read(index)
