"""One written example: the picture as JPEG, several captions, questions with answers, and the scene itself."""

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vlmtrain.data.scenes.grammar import caption
from vlmtrain.data.scenes.questions import Question, questions
from vlmtrain.data.scenes.render import render
from vlmtrain.data.scenes.world import Scene, make_scene, make_twin

CAPTIONS_PER_IMAGE = 5
JPEG_QUALITY = 92
TWINS = "twins"


@dataclass(frozen=True, slots=True)
class Record:
    """An example with all that is known of it; its key is its index, so that it names it in every format."""

    key: str
    jpeg: bytes
    captions: tuple[str, ...]
    questions: tuple[Question, ...]
    scene: Scene

    def annotations(self) -> dict[str, Any]:
        """All but the picture, as a dict that json can write."""
        return {
            "captions": list(self.captions),
            "questions": [question.to_json() for question in self.questions],
            "scene": self.scene.to_json(),
        }


def make_record(seed: int, split: str, index: int, image_size: int) -> Record:
    """The example of this seed, split and index; the captions are paraphrases of one another."""
    scene = _scene(seed, split, index)
    return Record(
        key=f"{index:08d}",
        jpeg=encode_jpeg(scene, image_size),
        captions=paraphrases(scene),
        questions=tuple(questions(scene, index)),
        scene=scene,
    )


def _scene(seed: int, split: str, index: int) -> Scene:
    """Of the split "twins" every second scene is the near-identical twin of the one before, a training scene."""
    if split != TWINS:
        return make_scene(seed, split, index)
    scene = make_scene(seed, "train", index // 2)
    return make_twin(scene, seed) if index % 2 else scene


def encode_jpeg(scene: Scene, image_size: int) -> bytes:
    """The picture as JPEG at full colour resolution, for halving it would blur the dots of small things."""
    held = io.BytesIO()
    Image.fromarray(render(scene, image_size)).save(held, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
    return held.getvalue()


def paraphrases(scene: Scene) -> tuple[str, ...]:
    """Wordings that differ from one another, as long as a few tries find enough; a repeat fills what is missing."""
    found: dict[str, None] = {}
    key = 0
    while len(found) < CAPTIONS_PER_IMAGE and key < 4 * CAPTIONS_PER_IMAGE:
        found[caption(scene, key)] = None
        key += 1
    wordings = list(found)
    return tuple(wordings[place % len(wordings)] for place in range(CAPTIONS_PER_IMAGE))
