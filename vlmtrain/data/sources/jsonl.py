"""A folder of images with a captions.jsonl: {"image": "dogs/1.jpg", "caption": "a dog"} per line."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmtrain.data.record import Record
from vlmtrain.data.sources.fields import captions_in, other_fields
from vlmtrain.data.sources.json_file import Fields, JsonFile, check_file_name

CAPTIONS_FILE = "captions.jsonl"


class JsonLines:
    """The lines of `folder`/captions.jsonl, or of the .jsonl file itself, with the images beside it.

    A line names its image by a path inside the folder: an absolute path, one that climbs out, or a link that leads out
    is refused, as is a line that is no JSON, and the run does not start.  An image that is missing or does not decode
    breaks its sample only.
    """

    def __init__(self, path: str) -> None:
        place = Path(path).expanduser()
        file = place / CAPTIONS_FILE if place.is_dir() else place
        if not file.is_file():
            raise ValueError(f"there is no {file.absolute()}: {LINES_TO_WRITE}")
        self.name = str(file)
        images: list[bytes] = []

        def check(fields: Fields) -> list[str]:
            image = check_file_name(fields.get("image"))
            if not captions_in(fields) and "caption" not in fields and "captions" not in fields:
                raise ValueError('there is no "caption" and no "captions"')
            images.append(image.encode())
            return [image]

        self._lines = JsonFile(file, check, LINES_TO_WRITE)
        self._images: NDArray[np.bytes_] = np.array(images)
        self.fingerprint = self._lines.fingerprint

    def __len__(self) -> int:
        return len(self._lines)

    def key(self, index: int) -> str:
        return str(self._images[index].decode())

    def read(self, index: int) -> Record:
        key = self.key(index)
        fields = self._lines.fields(index)
        return Record(key, [self._lines.read_file(key, key)], captions_in(fields), other_fields(fields))


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
