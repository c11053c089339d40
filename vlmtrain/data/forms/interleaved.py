"""Documents of images and texts in reading order."""

from vlmtrain.data.keys import fraction_of, key_of
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.layout import Part, Text, Visual

Place = int | str  # the number of an image, or a text


class Interleaved:
    """Images and texts as they stand in `record.extra["texts"]`, where None is the next image; all texts are learned.

    In training a document of more than `max_images` is a run of so many, drawn by chance (Flamingo's 5; Alayrac et al.
    2022, section 3.2).  A share `text_first` of the documents is read as having its images behind the texts that
    they belong to: there each image is put before the text that it follows, so that the text is written with it in
    view (Flamingo's p_next, 0.5 there).  Without `learn_before_images` the text before the first image is read
    only, as OpenFlamingo does (Awadalla et al. 2023, arXiv:2308.01390).  Texts that follow each other are joined.

    A prompt is everything up to the last image, of however many, and the first question if the record has one.
    """

    def __init__(
        self, max_images: int = 5, text_first: float = 0.0, learn_before_images: bool = True, joint: str = "\n\n"
    ) -> None:
        if max_images < 1 or not 0 <= text_first <= 1:
            raise ValueError(f"max_images={max_images} must be 1 or more, text_first={text_first} a share from 0 to 1")
        self.max_images = max_images
        self.text_first = text_first
        self.learn_before_images = learn_before_images
        self.joint = joint

    def parts(self, record: Record, key: int) -> list[Part]:
        places = self._places(record)
        if fraction_of("text first", key) < self.text_first:
            places = _join(_with_images_before_their_texts(places), self.joint)
        parts = self._parts(_window(places, self.max_images, key))
        while parts and isinstance(parts[-1], Visual):  # nothing is written about them
            parts.pop()
        if not any(isinstance(part, Text) and part.supervised for part in parts):
            raise BrokenSample(record.key, "the document has no text to learn, or only empty ones")
        return parts

    def prompt_parts(self, record: Record) -> list[Part]:
        places = self._places(record)
        images = [place for place, what in enumerate(places) if isinstance(what, int)]
        if not images:
            raise BrokenSample(record.key, "the document has no image to write about")
        questions = record.extra.get("questions")
        asked = str(questions[0]["text"]) if questions else ""
        return [*self._parts(places[: images[-1] + 1]), *([Text(asked, supervised=False)] if asked else [])]

    def _places(self, record: Record) -> list[Place]:
        """The document; BrokenSample where texts and images do not fit each other."""
        texts = record.extra.get("texts")
        if not isinstance(texts, list):
            raise BrokenSample(record.key, 'it is no document: it has no list of "texts"')
        if texts.count(None) != len(record.images):
            raise BrokenSample(
                record.key, f"its texts leave room for {texts.count(None)} images and it has {len(record.images)}"
            )
        places: list[Place] = []
        for text in texts:
            if text is None:
                places.append(sum(isinstance(place, int) for place in places))
            elif text.strip():
                places.append(text)
        return _join(places, self.joint)

    def _parts(self, places: list[Place]) -> list[Part]:
        parts: list[Part] = []
        for place in places:
            if isinstance(place, int):
                parts.append(Visual(images=(place,)))
            else:
                parts.append(Text(place, supervised=self.learn_before_images or bool(parts)))
        return parts


def _join(places: list[Place], joint: str) -> list[Place]:
    """Texts that follow each other become one."""
    joined: list[Place] = []
    for place in places:
        last = joined[-1] if joined else None
        if isinstance(place, str) and isinstance(last, str):
            joined[-1] = f"{last}{joint}{place}"
        else:
            joined.append(place)
    return joined


def _with_images_before_their_texts(places: list[Place]) -> list[Place]:
    """Every text with a run of images behind it changes places with the run."""
    turned: list[Place] = []
    text: list[Place] = []
    for place in places:
        if isinstance(place, str):
            turned += text
            text = [place]
        else:
            turned.append(place)
    return turned + text


def _window(places: list[Place], max_images: int, key: int) -> list[Place]:
    """A run of `max_images` images with their texts; of the runs that have text behind an image, one by chance."""
    images = [number for number, place in enumerate(places) if isinstance(place, int)]
    if len(images) <= max_images:
        return places
    bounds = [0, *images[1:], len(places)]  # what stands before the first image belongs to it
    runs = [places[bounds[first] : bounds[first + max_images]] for first in range(len(images) - max_images + 1)]
    fitting = [run for run in runs if any(isinstance(place, str) for place in run[1:])] or runs
    return fitting[key_of("window", key) % len(fitting)]
