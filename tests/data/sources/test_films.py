"""Films: the frames that a player shows at each time, and files that are none."""

import importlib.util
import io
import json
from fractions import Fraction
from pathlib import Path

import pytest
from PIL import Image

from vlmtrain.data.decode import decode_image
from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.films import BrokenFilm, sample_film
from vlmtrain.data.sources.videos import Videos

av = pytest.importorskip("av")


def film(times: list[float], suffix: str = ".mp4", size: tuple[int, int] = (32, 16)) -> bytes:
    """Frame n, grey of brightness 20 n, is shown at times[n]."""
    written = io.BytesIO()
    names = {".mp4": ("mp4", "libx264"), ".mkv": ("matroska", "libx264"), ".webm": ("webm", "libvpx")}
    container, codec = names[suffix]
    with av.open(written, "w", format=container) as output:
        stream = output.add_stream(codec, rate=100)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (20 * number,) * 3))
            frame.pts, frame.time_base = round(time * 100), Fraction(1, 100)
            for packet in stream.encode(frame):
                output.mux(packet)
        for packet in stream.encode():
            output.mux(packet)
    return written.getvalue()


def numbers(frames: list[Image.Image]) -> list[int]:
    return [round(frame.convert("L").getpixel((4, 4)) / 20) for frame in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_t41_a_frame_stays_until_the_next_one_comes(suffix: str) -> None:
    data = film([0.0, 0.5, 1.2, 3.0, 3.1], suffix)
    assert numbers(sample_film(data, suffix, 1.0, 9, 10**6)) == [0, 1, 2, 3]
    assert numbers(sample_film(data, suffix, 10.0, 99, 10**6))[:13] == [0] * 5 + [1] * 7 + [2]


def test_t41_ten_seconds_at_25_fps_are_ten_frames() -> None:
    data = film([number / 25 for number in range(250)])
    assert len(sample_film(data, ".mp4", 1.0, 256, 10**6)) == 10
    assert len(sample_film(data, ".mp4", 2.0, 256, 10**6)) == 20


def test_a_film_that_begins_late_begins_at_its_first_frame() -> None:
    assert numbers(sample_film(film([5.0, 5.5, 6.5]), ".mp4", 1.0, 9, 10**6))[:2] == [0, 1]


def test_one_frame_is_a_film() -> None:
    assert numbers(sample_film(film([0.0]), ".mp4", 1.0, 9, 10**6)) == [0]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "does not decode"),
        (b"<html>no film</html>" * 50, "does not decode"),
        (film([0.0, 1.0])[:700], "does not decode|no frame|no video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "does not decode"),
    ],
)
def test_what_is_no_film_is_told(data: bytes, told: str) -> None:
    with pytest.raises(BrokenFilm, match=told):
        sample_film(data, ".mp4", 1.0, 9, 10**6)


def test_limits_are_kept_before_the_work() -> None:
    data = film([0.0, 1.0, 2.0, 3.0])
    with pytest.raises(BrokenFilm, match="32 x 16 pixels, above 100"):
        sample_film(data, ".mp4", 1.0, 9, 100)
    with pytest.raises(BrokenFilm, match="more than max_sampled=2"):
        sample_film(data, ".mp4", 1.0, 2, 10**6)


def test_films_are_a_source_of_records(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(film([0.0, 1.0, 2.0]))
    (tmp_path / "b.mp4").write_bytes(b"nothing")
    lines = [{"video": "a.mp4", "caption": "it gets brighter"}, {"video": "b.mp4", "caption": "x"}]
    (tmp_path / "videos.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = Videos(str(tmp_path))
    record = source.read(0)
    assert [round(int(decode_image(image, 10**6, 1)[4, 4, 0]) / 20) for image in record.images[:3]] == [0, 1, 2]
    assert record.captions == ["it gets brighter"]
    with pytest.raises(BrokenSample, match=r"b\.mp4: it does not decode"):
        source.read(1)


def test_without_the_package_it_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "videos.jsonl").write_text(json.dumps({"video": "a.mp4", "caption": "x"}) + "\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"vlmtrain\[video\]"):
        Videos(str(tmp_path))
