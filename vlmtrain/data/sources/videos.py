"""Videos with captions or questions: lists of frames, films or animated images, one per line of JSON."""

import io
import math
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.fields import captions_in
from vlmtrain.data.sources.films import DEMUXERS, BrokenFilm, require_decoder, sample_film
from vlmtrain.data.sources.json_file import Fields, check_file_name
from vlmtrain.data.sources.json_source import JsonSource, find_json_file

VIDEOS_FILE = "videos.jsonl"
_ANIMATIONS = (".gif", ".webp", ".png")
_MAX_PIXELS = 16_000_000  # of a frame
_NO_DURATION = 100  # ms; how long browsers show a frame that says 0
_TINY = 1e-9


class Videos(JsonSource):
    """The lines of `folder`/videos.jsonl, or of the .jsonl file itself, with the videos beside it.

    A line names `frames`, a list of images taken `fps` times a second (without it they are taken as they are), or
    `video`, a film (mp4, mov, webm, mkv, avi) or an animated GIF, WebP or PNG.  Sampled at `frames_per_second`, as
    Flamingo does at 1 (Alayrac et al. 2022, section 3.1: 10 s at 25 fps are 10 frames), they are the record's images.
    Other fields are kept: `caption`, `questions`.  Training reads a list of frames faster than a film.
    """

    def __init__(self, path: str, frames_per_second: float = 1.0, max_sampled: int = 256) -> None:
        if not frames_per_second > 0 or max_sampled < 1:
            raise ValueError(f"frames_per_second={frames_per_second} and max_sampled={max_sampled} must be above 0")
        self.frames_per_second = frames_per_second
        self.max_sampled = max_sampled
        super().__init__(find_json_file(path, VIDEOS_FILE, VIDEOS_TO_WRITE), VIDEOS_TO_WRITE)

    def files_in(self, fields: Fields) -> list[str]:
        return _files_in(fields)

    def record(self, key: str, fields: Fields) -> Record:
        if "frames" in fields:
            images = self._frames(fields, key)
        else:
            images = self._film(fields, key) if _suffix(fields) in DEMUXERS else self._animation(fields, key)
        extra = {
            name: value
            for name, value in fields.items()
            if name not in ("frames", "video", "fps", "captions", "caption", "text")
        }
        return Record(key, images, captions_in(fields), extra)

    def _frames(self, fields: Fields, key: str) -> list[bytes]:
        names: list[str] = fields["frames"]
        fps = float(fields.get("fps", self.frames_per_second))
        wanted = [int(time * fps + _TINY) for time in self._times(len(names) / fps, key)]
        return [self.objects.read_file(names[frame], key) for frame in wanted]

    def _film(self, fields: Fields, key: str) -> list[bytes]:
        data = self.objects.read_file(fields["video"], key)
        try:
            frames = sample_film(data, _suffix(fields), self.frames_per_second, self.max_sampled, _MAX_PIXELS)
        except BrokenFilm as error:
            raise BrokenSample(key, f"{fields['video']}: {error}") from None
        return [_unpacked(frame) for frame in frames]

    def _animation(self, fields: Fields, key: str) -> list[bytes]:
        data = self.objects.read_file(fields["video"], key)
        try:
            with Image.open(io.BytesIO(data), formats=("GIF", "WEBP", "PNG")) as clip:
                if clip.width * clip.height > _MAX_PIXELS:
                    raise BrokenSample(key, f"its frames have {clip.width} x {clip.height} pixels, above {_MAX_PIXELS}")
                ends = _ends_of_frames(clip)
                times = self._times(ends[-1], key)
                return [_frame(clip, next(n for n, end in enumerate(ends) if time < end - _TINY)) for time in times]
        except (UnidentifiedImageError, OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise BrokenSample(key, f"{fields['video']} does not decode: {str(error)[:120]}") from None

    def _times(self, seconds: float, key: str) -> list[float]:
        """When, in seconds from the start, a frame is taken."""
        count = max(1, math.ceil(seconds * self.frames_per_second - _TINY))
        if count > self.max_sampled:
            raise BrokenSample(key, f"{seconds:.0f} s give {count} frames, above max_sampled={self.max_sampled}")
        return [number / self.frames_per_second for number in range(count)]


def _ends_of_frames(clip: Image.Image) -> list[float]:
    """Seconds from the start at which each frame is over."""
    ends, end = [], 0
    for number in range(getattr(clip, "n_frames", 1)):
        clip.seek(number)
        clip.load()  # WebP knows how long a frame is shown only then
        end += int(clip.info.get("duration", 0)) or _NO_DURATION
        ends.append(end / 1000)
    return ends


def _frame(clip: Image.Image, number: int) -> bytes:
    clip.seek(number)
    return _unpacked(clip)


def _unpacked(frame: Image.Image) -> bytes:
    """A frame as a file of its own, without loss and without the work of packing it."""
    held = io.BytesIO()
    frame.convert("RGB").save(held, format="BMP")
    return held.getvalue()


def _suffix(fields: Fields) -> str:
    return Path(fields["video"]).suffix.lower()


def _files_in(fields: Fields) -> list[str]:
    """The files of a line, checked; ValueError says what is wrong with it."""
    captions_in(fields)
    if ("frames" in fields) == ("video" in fields):
        raise ValueError('it needs either "frames", a list of images, or "video", a film or animated image')
    if "video" in fields:
        name = check_file_name(fields["video"], "video")
        suffix = Path(name).suffix.lower()
        if suffix in DEMUXERS:
            require_decoder(name)
        elif suffix not in _ANIMATIONS:
            raise ValueError(
                f"there is no decoder for {name[:120]!r}: write it as {', '.join((*DEMUXERS, *_ANIMATIONS))} or as a "
                "list of frames (ffmpeg -i clip.ts -vf fps=1 clip/%04d.jpg)"
            )
        return [name]
    frames, fps = fields["frames"], fields.get("fps", 1)
    if not isinstance(frames, list) or not frames:
        raise ValueError('"frames" must be a list of one image or more')
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not fps > 0:
        raise ValueError(f'"fps" must be a number above 0, this is {str(fps)[:60]!r}')
    return [check_file_name(frame, "frames") for frame in frames]


VIDEOS_TO_WRITE = (
    "videos need one line of JSON each in videos.jsonl, for example\n"
    '    {"frames": ["1/0001.jpg", "1/0002.jpg"], "fps": 1, "caption": "a dog runs to the left"}\n'
    '    {"video": "2.mp4", "caption": "a ball falls"}\n'
    "or an animated .gif, .webp or .png in place of the film"
)
