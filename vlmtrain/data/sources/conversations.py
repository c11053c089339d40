"""Conversations about images in LLaVA's format: one list of entries in a .json, or one entry per line of a .jsonl."""

from pathlib import Path
from typing import Any

from vlmtrain.data.record import Record
from vlmtrain.data.sources.json_file import Fields, check_file_name
from vlmtrain.data.sources.json_source import JsonSource

IMAGE_MARK = "<image>"
_SPEAKERS = ("human", "gpt")


class Conversations(JsonSource):
    """Entries {"id", "image", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt",
    "value": "A dog."}]} of the file at `path`; images lie in the folder `images`, or beside the file.

    `image` is a file or a list of files, or left out; the human's turns must have one <image> for each.  Turns
    alternate, the human's first.  An entry that is otherwise stops the run at its start, by number: it would have put
    words beside the wrong image.  The record's captions are the first answer, for a stage that learns descriptions;
    `extra` has the turns, and the first one as a question.
    """

    def __init__(self, path: str, images: str | None = None) -> None:
        file = Path(path).expanduser()
        if file.suffix not in (".json", ".jsonl") or not file.is_file():
            raise ValueError(f"there is no .json or .jsonl file {file.absolute()}: {CONVERSATIONS_TO_WRITE}")
        folder = Path(images).expanduser() if images is not None else file.parent
        if not folder.is_dir():
            raise ValueError(f"there is no folder of images {folder.absolute()}: name it with data.images=FOLDER")
        super().__init__(file, CONVERSATIONS_TO_WRITE, folder)

    def files_in(self, fields: Fields) -> list[str]:
        names = images_of(fields)
        check_turns(fields.get("conversations"), len(names))
        return names

    def key_of(self, fields: Fields, number: int) -> str:
        return f"{fields.get('id', '')}#{number}"  # ids are not unique in what is published

    def record(self, key: str, fields: Fields) -> Record:
        images = [self.objects.read_file(name, key) for name in images_of(fields)]
        turns = [turn["value"] for turn in fields["conversations"]]
        question = {"text": turns[0].replace(IMAGE_MARK, "").strip(), "answer": turns[1].strip()}
        return Record(key, images, [turns[1].strip()], {"turns": turns, "questions": [question]})


def images_of(fields: Fields) -> list[str]:
    """The files that an entry names, checked."""
    image = fields.get("image")
    if image is None:
        return []
    return [check_file_name(name) for name in (image if isinstance(image, list) else [image])]


def check_turns(turns: Any, num_images: int) -> None:
    """ValueError where the turns do not alternate, or have not one mark for each image."""
    if not isinstance(turns, list) or len(turns) < 2 or len(turns) % 2:
        count = f"{len(turns)} turns" if isinstance(turns, list) else "no list"
        raise ValueError(f'"conversations" must be turns of human and gpt, as many of each; this is {count}')
    for number, turn in enumerate(turns):
        wanted = _SPEAKERS[number % 2]
        if not isinstance(turn, dict) or turn.get("from") != wanted or not isinstance(turn.get("value"), str):
            raise ValueError(f'turn {number + 1} must be {{"from": "{wanted}", "value": ...}}, got {str(turn)[:60]}')
        if wanted == "gpt" and IMAGE_MARK in turn["value"]:
            raise ValueError(f"turn {number + 1} is an answer and holds {IMAGE_MARK}: an answer shows no image")
    marks = sum(turn["value"].count(IMAGE_MARK) for turn in turns)
    if marks != num_images:
        raise ValueError(
            f"its turns hold {marks} {IMAGE_MARK} and it names {num_images} images: there must be one for each"
        )


CONVERSATIONS_TO_WRITE = (
    "conversations need a .json file with one list of entries (or a .jsonl with one per line), for example\n"
    '    {"id": "1", "image": "dogs/1.jpg", "conversations": [\n'
    '        {"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A dog."}]}'
)
