"""A folder of images with a captions.jsonl: {"image": "dogs/1.jpg", "caption": "a dog"} per line."""

from vlmtrain.data.record import Record
from vlmtrain.data.sources.fields import captions_in, other_fields
from vlmtrain.data.sources.json_file import Fields, check_file_name
from vlmtrain.data.sources.json_source import JsonSource, find_json_file

CAPTIONS_FILE = "captions.jsonl"


class JsonLines(JsonSource):
    """The lines of `folder`/captions.jsonl, or of the .jsonl file itself, with the images beside it.

    A line names its image by a path inside the folder: an absolute path, one that climbs out, or a link that leads out
    is refused, as is a line that is no JSON, and the run does not start.  An image that is missing or does not decode
    breaks its sample only.
    """

    def __init__(self, path: str) -> None:
        super().__init__(find_json_file(path, CAPTIONS_FILE, LINES_TO_WRITE), LINES_TO_WRITE)

    def files_in(self, fields: Fields) -> list[str]:
        image = check_file_name(fields.get("image"))
        if not captions_in(fields) and "caption" not in fields and "captions" not in fields:
            raise ValueError('there is no "caption" and no "captions"')
        return [image]

    def key_of(self, fields: Fields, number: int) -> str:
        return str(fields["image"])

    def record(self, key: str, fields: Fields) -> Record:
        return Record(key, [self.objects.read_file(key, key)], captions_in(fields), other_fields(fields))


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
