"""A folder of images with a captions.jsonl: {"image": "dogs/1.jpg", "caption": "a dog"} per line."""

import hashlib
import os
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.fields import captions_in, other_fields, parse_object
from vlmtrain.data.sources.files import OpenFiles, open_regular

CAPTIONS_FILE = "captions.jsonl"
_MAX_IMAGE_BYTES = 256 << 20
_MAX_FAULTS_SHOWN = 5


class JsonLines:
    """The lines of `folder`/captions.jsonl, or of the .jsonl file itself, with the images beside it.

    A line names its image by a path inside the folder: an absolute path, one that climbs out, or a link that leads out
    is refused, as is a line that is no JSON, and the run does not start.  An image that is missing or does not decode
    breaks its sample only.
    """

    def __init__(self, path: str) -> None:
        place = Path(path).expanduser()
        self._file = place / CAPTIONS_FILE if place.is_dir() else place
        if not self._file.is_file():
            raise ValueError(f"there is no {self._file.absolute()}: {LINES_TO_WRITE}")
        self.name = str(self._file)
        self._root = self._file.parent.resolve()
        content = self._file.read_bytes()
        images, offsets, lengths = self._read_lines(content)
        self._images: NDArray[np.bytes_] = np.array([image.encode() for image in images])
        self._offsets, self._lengths = np.array(offsets), np.array(lengths)
        self._size = len(content)
        self.fingerprint = hashlib.sha256(content + self._image_sizes(images)).hexdigest()
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self._images)

    def key(self, index: int) -> str:
        return str(self._images[index].decode())

    def read(self, index: int) -> Record:
        key = self.key(index)
        line = self._files.read(self._file, int(self._offsets[index]), int(self._lengths[index]))
        fields = parse_object(line)
        return Record(key, [self._read_image(key)], captions_in(fields), other_fields(fields))

    def _read_lines(self, content: bytes) -> tuple[list[str], list[int], list[int]]:
        images: list[str] = []
        offsets: list[int] = []
        lengths: list[int] = []
        faults: list[str] = []
        position = 0
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip():
                try:
                    images.append(_image_in(line))
                    offsets.append(position)
                    lengths.append(len(line))
                except ValueError as error:
                    faults.append(f"line {number}: {error}")
            position += len(line) + 1
        if faults:
            shown = "; ".join(faults[:_MAX_FAULTS_SHOWN])
            raise ValueError(f"{len(faults)} lines of {self._file} cannot be used: {shown}. Mend or remove them.")
        if not images:
            raise ValueError(f"{self._file} has no line: {LINES_TO_WRITE}")
        return images, offsets, lengths

    def _image_sizes(self, images: list[str]) -> bytes:
        """Bytes of every image, -1 where it is missing; ValueError for a link that leads out of the folder."""
        sizes = np.full(len(images), -1, dtype=np.int64)
        folders: set[str] = set()
        for number, image in enumerate(images):
            folder = os.path.dirname(image)
            if folder not in folders:
                self._check_inside(folder)
                folders.add(folder)
            place = os.path.join(self._root, image)
            if os.path.islink(place):
                self._check_inside(image)
            if os.path.exists(place):
                sizes[number] = os.path.getsize(place)
        return sizes.tobytes()

    def _check_inside(self, image: str) -> None:
        if not Path(os.path.realpath(self._root / image)).is_relative_to(self._root):
            raise ValueError(f"{self._file}: the image {image!r} is a link out of {self._root}: copy the file")

    def _read_image(self, image: str) -> bytes:
        self._check_inside(image)
        try:
            descriptor = open_regular(self._root / image)
        except FileNotFoundError:
            raise BrokenSample(image, f"there is no such file in {self._root}") from None
        except (IsADirectoryError, ValueError):
            raise BrokenSample(image, "it is not a regular file") from None
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(_MAX_IMAGE_BYTES + 1)
        if len(data) > _MAX_IMAGE_BYTES:
            raise BrokenSample(image, f"it has more than {_MAX_IMAGE_BYTES} bytes")
        return data


def _image_in(line: bytes) -> str:
    """The image that a line names, checked; ValueError says what is wrong with the line."""
    fields = parse_object(line)
    image = fields.get("image")
    if not isinstance(image, str) or not image:
        raise ValueError(f'"image" must be the path of a file in the folder, this is {str(image)[:60]!r}')
    if "://" in image:
        raise ValueError(f"the image {image[:120]!r} is a web address: download it first")
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts or "\\" in image or "\0" in image:
        raise ValueError(f"the image {image[:120]!r} lies outside the folder: use a path relative to it, without '..'")
    if not captions_in(fields) and "caption" not in fields and "captions" not in fields:
        raise ValueError('there is no "caption" and no "captions"')
    return image


LINES_TO_WRITE = (
    "a folder of images needs one line of JSON per image in captions.jsonl, for example\n"
    '    {"image": "dogs/1.jpg", "caption": "a brown dog on the beach"}\n'
    '    {"image": "2.png", "captions": ["a red car", "a car in front of a house"]}\n'
    "which ten lines of Python can write:\n"
    "    import json, pathlib\n"
    '    folder = pathlib.Path("FOLDER")\n'
    '    with open(folder / "captions.jsonl", "w") as file:\n'
    '        for image in sorted(folder.rglob("*.jpg")):\n'
    '            caption = image.with_suffix(".txt").read_text().strip()\n'
    '            row = {"image": str(image.relative_to(folder)), "caption": caption}\n'
    '            file.write(json.dumps(row) + "\\n")'
)
