"""Documents of images and texts in reading order, one per line of JSON."""

from vlmtrain.data.record import Record
from vlmtrain.data.sources.fields import captions_in
from vlmtrain.data.sources.json_file import Fields, check_file_name
from vlmtrain.data.sources.json_source import JsonSource, find_json_file

DOCUMENTS_FILE = "documents.jsonl"


class InterleavedDocuments(JsonSource):
    """The lines of `folder`/documents.jsonl, or of the .jsonl file itself, with the images beside it.

    A line has two lists of equal length, as OBELICS has (Laurençon et al. 2023, arXiv:2306.16527): at each place of the
    document either `images` names a file or `texts` holds a text, and the other is null.  The record's images are those
    named, and `extra["texts"]` is the list of texts, with None where the next image stands.  What is wrong with a line
    stops the run at its start, by line; an image that is missing or does not decode breaks its document only.
    """

    def __init__(self, path: str) -> None:
        super().__init__(find_json_file(path, DOCUMENTS_FILE, DOCUMENTS_TO_WRITE), DOCUMENTS_TO_WRITE)

    def files_in(self, fields: Fields) -> list[str]:
        return _images_in(fields)

    def record(self, key: str, fields: Fields) -> Record:
        images = [self.objects.read_file(name, key) for name in fields["images"] if name is not None]
        texts = fields["texts"]
        captions = captions_in(fields) or [text for text in texts if text is not None]
        extra = {name: value for name, value in fields.items() if name not in ("images", "captions", "caption", "text")}
        return Record(key, images, captions, extra)


def _images_in(fields: Fields) -> list[str]:
    """The images of a line, checked; ValueError says what is wrong with it."""
    images, texts = fields.get("images"), fields.get("texts")
    if not isinstance(images, list) or not isinstance(texts, list):
        raise ValueError('"images" and "texts" must be lists')
    if len(images) != len(texts):
        raise ValueError(
            f'"images" has {len(images)} places and "texts" {len(texts)}: each place of the document is in both, '
            "null where it is the other's"
        )
    for place, (image, text) in enumerate(zip(images, texts, strict=True), start=1):
        if (image is None) == (text is None):
            raise ValueError(f"place {place} has {'neither image nor text' if image is None else 'image and text'}")
        if text is not None and not isinstance(text, str):
            raise ValueError(f"the text at place {place} must be a string, this is {str(text)[:60]!r}")
    if not images:
        raise ValueError("the document is empty")
    captions_in(fields)
    return [check_file_name(image, "images") for image in images if image is not None]


DOCUMENTS_TO_WRITE = (
    "documents of images and texts need one line of JSON per document in documents.jsonl: two lists of equal length, "
    "with null in the one where the other has something, for example\n"
    '    {"images": ["1.jpg", null, "2.jpg", null], "texts": [null, "a red car", null, "the same car from behind"]}'
)
