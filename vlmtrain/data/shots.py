"""Few-shot prompts: the same records with more or fewer examples before the one that is asked about."""

import hashlib
from dataclasses import replace

from vlmtrain.data.keys import key_of
from vlmtrain.data.record import BrokenSample, Record
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.view import View


class LastShots(View):
    """Documents of examples, cut to the last `num_shots` of them and the image that is asked about.

    The document's texts follow their images one by one, and the text of the last image is the answer.
    """

    def __init__(self, source: Source, num_shots: int) -> None:
        super().__init__(source)
        self.num_shots = _check(num_shots)

    @property
    def name(self) -> str:
        return f"{self.source.name} ({self.num_shots} shots)"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.source.fingerprint}\x1flast\x1f{self.num_shots}".encode()).hexdigest()

    def change(self, index: int, record: Record) -> Record:
        texts = record.extra.get("texts") or []
        held = len(record.images) - 1
        if texts.count(None) != len(record.images) or held < self.num_shots:
            raise BrokenSample(record.key, f"it holds {held} examples, {self.num_shots} are wanted")
        starts = [place for place, text in enumerate(texts) if text is None]
        kept = texts[starts[held - self.num_shots] :]
        images = record.images[held - self.num_shots :]
        return replace(record, images=images, extra={**record.extra, "texts": kept})


class WithShots(View):
    """Each record of `source` behind `num_shots` records of `support` with their answers: a document to go on with.

    Which ones is drawn from the record's key, none twice and never the record itself.  A record with questions is asked
    its first, and examples are other records' first questions with their answers; one without is to be captioned, and
    examples have their first captions.  The prompts of Flamingo's evaluation (Alayrac et al. 2022, section 3.4).
    """

    def __init__(self, source: Source, support: Source, num_shots: int, seed: int = 0) -> None:
        if num_shots >= len(support):
            raise ValueError(f"{num_shots} shots cannot be drawn from the {len(support)} records of {support.name}")
        super().__init__(source)
        self.support = support
        self.num_shots = _check(num_shots)
        self.seed = seed

    @property
    def name(self) -> str:
        return f"{self.source.name} ({self.num_shots} shots of {self.support.name})"

    @property
    def fingerprint(self) -> str:
        parts = (self.source.fingerprint, self.support.fingerprint, str(self.num_shots), str(self.seed))
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()

    def change(self, index: int, record: Record) -> Record:
        images: list[bytes] = []
        texts: list[str | None] = []
        for example in self._examples(record.key):
            images += example.images
            texts += [None] * len(example.images) + [_told(example)]
        return replace(
            record,
            images=[*images, *record.images],
            extra={**record.extra, "texts": [*texts, *[None] * len(record.images)]},
        )

    def _examples(self, key: str) -> list[Record]:
        """Broken ones are passed over."""
        found: list[Record] = []
        tried: set[int] = set()
        attempt = 0
        while len(found) < self.num_shots:
            index = key_of("shot", self.seed, key, attempt) % len(self.support)
            attempt += 1
            if index in tried or self.support.key(index) == key:
                if attempt > 100 * len(self.support):
                    raise BrokenSample(key, f"{self.support.name} has no {self.num_shots} examples for it")
                continue
            tried.add(index)
            try:
                example = self.support.read(index)
                _told(example)
            except BrokenSample:
                continue  # it is told where it is trained on or asked about
            found.append(example)
        return found


def _told(record: Record) -> str:
    questions = record.extra.get("questions")
    if questions:
        return f"{questions[0]['text']} {questions[0]['answer']}"
    if not record.captions:
        raise BrokenSample(record.key, "it has no caption")
    return record.captions[0]


def _check(num_shots: int) -> int:
    if num_shots < 0:
        raise ValueError(f"num_shots={num_shots}: none or more")
    return num_shots
