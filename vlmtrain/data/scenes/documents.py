"""Documents of several pictures, each followed by its caption: image, text, image, text, ..."""

from dataclasses import dataclass, replace

from vlmtrain.data.scenes.draws import Draws, key_of
from vlmtrain.data.scenes.formats import Example
from vlmtrain.data.scenes.grammar import caption
from vlmtrain.data.scenes.records import encode_jpeg, paraphrases
from vlmtrain.data.scenes.things import HELD_OUT_PAIRS, Scene
from vlmtrain.data.scenes.world import make_scene

FEWEST_IMAGES, MOST_IMAGES = 3, 4
VERSION = 1
"""Raised whenever the same seed would give other documents."""


@dataclass(frozen=True, slots=True)
class MakeDocument:
    """Three or four pictures that have nothing to do with each other, so that only its own tells of a caption.

    The line holds `images` and `texts` in reading order, as OBELICS does (Laurençon et al. 2023, arXiv:2306.16527), and
    for evaluation the captions and scene of the last picture, and the scenes of all.  Pictures show up to `max_things`.
    """

    max_things: int = 1

    def __call__(self, seed: int, split: str, index: int, image_size: int) -> Example:
        draws = Draws("document of pictures", seed, split, index)
        count = FEWEST_IMAGES + draws.below(MOST_IMAGES - FEWEST_IMAGES + 1)
        scenes = [scene_with(self.max_things, seed, split, index, place) for place in range(count)]
        names = [f"images/{index:08d}-{place}.jpg" for place in range(count)]
        line = {
            "id": f"{index:08d}",
            "images": [name for image in names for name in (image, None)],
            "texts": [text for scene in scenes for text in (None, caption(scene, draws.below(2**20)))],
            "captions": list(paraphrases(scenes[-1])),
            "scene": scenes[-1].to_json(),
            "scenes": [scene.to_json() for scene in scenes],
        }
        pictures = [encode_jpeg(scene, image_size) for scene in scenes]
        return Example(line, dict(zip(names, pictures, strict=True)))


def scene_with(max_things: int, *key: int | str) -> Scene:
    """The scene of a seed, a split and more, less the things above `max_things`; what is held out stays longest."""
    seed, split, *rest = key
    scene = make_scene(key_of("scene of several", seed, *rest) % 2**31, str(split), 0)
    things = sorted(scene.things, key=lambda thing: (thing.colour, thing.shape) not in HELD_OUT_PAIRS)
    return replace(scene, things=tuple(things[:max_things]))
