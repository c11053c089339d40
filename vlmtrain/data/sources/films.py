"""Frames of compressed video (mp4, mov, webm, mkv, avi), by PyAV: `pip install 'vlmtrain[video]'`."""

import importlib.util
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import av

# Suffix -> the demuxer that may read it.  Named, so that no file chooses one that opens others (a playlist does).
DEMUXERS = {".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".webm": "matroska", ".mkv": "matroska", ".avi": "avi"}
_TINY = 1e-9


class BrokenFilm(Exception):
    """A film that does not decode, or holds more than is asked for."""


def require_decoder(name: str) -> None:
    """ValueError where nothing that is installed decodes the film `name`."""
    if importlib.util.find_spec("av") is None:
        raise ValueError(
            f"{name[:120]!r} needs a package that is not installed: pip install 'vlmtrain[video]'; or write it as a "
            "list of frames (ffmpeg -i clip.mp4 -vf fps=1 clip/%04d.jpg)"
        )


def sample_film(
    data: bytes, suffix: str, frames_per_second: float, max_frames: int, max_pixels: int
) -> list[Image.Image]:
    """What is to be seen at 0, 1/frames_per_second, ... seconds, the first frame at least; upright.

    BrokenFilm where nothing can be read, where frames have more than `max_pixels`, or where there are more than
    `max_frames`.
    """
    import av  # an extra

    try:
        with av.open(io.BytesIO(data), mode="r", format=DEMUXERS[suffix]) as film:
            if not film.streams.video:
                raise BrokenFilm("it holds no video")
            stream = film.streams.video[0]
            stream.thread_type = "NONE"  # a data worker has one core
            if stream.width * stream.height > max_pixels:
                raise BrokenFilm(f"its frames have {stream.width} x {stream.height} pixels, above {max_pixels}")
            frames: list[Image.Image] = []
            for frame in _at_times(film.decode(stream), frames_per_second):
                if len(frames) == max_frames:
                    raise BrokenFilm(f"{frames_per_second} frames a second give more than max_sampled={max_frames}")
                frames.append(_upright(frame))
    except (av.FFmpegError, ValueError) as error:
        raise BrokenFilm(f"it does not decode: {str(error)[:120]}") from None
    if not frames:
        raise BrokenFilm("it holds no frame")
    return frames


def _at_times(decoded: Iterator["av.VideoFrame"], frames_per_second: float) -> Iterator["av.VideoFrame"]:
    """The frame that is shown at each time: a frame stays until the next one comes, the last one for its duration."""
    shown, start, number, length = None, 0.0, 0, 0.0
    for frame in decoded:
        if frame.time is None:
            continue
        if shown is None:
            start = frame.time
        while shown is not None and number / frames_per_second < frame.time - start - _TINY:
            yield shown
            number += 1
        if shown is not None and shown.time is not None:
            length = frame.time - shown.time
        shown = frame
    if shown is None or shown.time is None:
        return
    told = float(shown.duration * shown.time_base) if shown.duration and shown.time_base else length
    end = shown.time - start + told
    while number == 0 or number / frames_per_second < end - _TINY:
        yield shown
        number += 1


def _upright(frame: "av.VideoFrame") -> Image.Image:
    """As a player shows it: telephones write on their side what was filmed upright."""
    return frame.to_image().rotate(frame.rotation, expand=True) if frame.rotation else frame.to_image()
