"""Short videos: one or two things that move or change, so that no single picture says how."""

from dataclasses import dataclass, replace

from vlmtrain.data.scenes.documents import scene_with
from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.formats import Example
from vlmtrain.data.scenes.grammar import phrase
from vlmtrain.data.scenes.questions import Question
from vlmtrain.data.scenes.records import encode_jpeg
from vlmtrain.data.scenes.things import Scene, Thing

VERSION = 1
"""Raised whenever the same seed would give other videos."""

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
GROWTHS = {"growing": 1, "shrinking": -1}
MOTIONS = (*DIRECTIONS, *GROWTHS)
MOTION_WORDS = {
    **{motion: (f"moving {motion}",) for motion in DIRECTIONS},
    **{motion: (motion,) for motion in GROWTHS},
}
_CAPTIONS = 5
_PATH = (0.3, 0.6)  # widths of the image from the first frame to the last
_GROWTH = 0.5  # of the radius, from the first frame to the last


@dataclass(frozen=True, slots=True)
class MakeVideo:
    """A caption such as "a small red circle moving left", questions (first of the motion), and the frames.

    What leaves the picture at one side comes in at the other, and starts anywhere: every frame by itself, and all of
    them in no order, are as likely for one direction as for any other.  Of growing and shrinking that holds for the
    middle frame and for the frames in no order; the first and the last tell them apart a little.
    """

    num_frames: int = 6
    num_things: int = 1
    motions: tuple[str, ...] = tuple(DIRECTIONS)

    def __call__(self, seed: int, split: str, index: int, image_size: int) -> Example:
        draws = Draws("video", seed, split, index)
        scene = scene_with(self.num_things, seed, split, "video", index)
        motions = [draws.pick(self.motions) for _ in scene.things]
        frames = self._frames(scene, motions, draws)
        names = [f"frames/{index:08d}-{place:02d}.jpg" for place in range(self.num_frames)]
        captions = [_caption(scene, motions, Draws("video caption", seed, split, index, n)) for n in range(_CAPTIONS)]
        line = {
            "id": f"{index:08d}",
            "frames": names,
            "fps": 1,
            "captions": captions,
            "questions": [question.to_json() for question in self._questions(scene, motions, draws)],
            "scene": scene.to_json(),
            "motions": motions,
        }
        return Example(line, {name: encode_jpeg(each, image_size) for name, each in zip(names, frames, strict=True)})

    def _frames(self, scene: Scene, motions: list[str], draws: Draws) -> list[Scene]:
        paths = [(draws.uniform(), draws.uniform(), draws.uniform(*_PATH)) for _ in scene.things]
        frames = []
        for number in range(self.num_frames):
            part = number / max(1, self.num_frames - 1) - 0.5  # -0.5 to 0.5, 0 in the middle
            things: list[Thing] = []
            for thing, motion, (x, y, length) in zip(scene.things, motions, paths, strict=True):
                across, down = DIRECTIONS.get(motion, (0, 0))
                radius = thing.radius * (1 + GROWTHS.get(motion, 0) * _GROWTH * part)
                moved = replace(thing, x=x + across * length * part, y=y + down * length * part, radius=radius)
                things += _around_the_edges(moved)
            frames.append(replace(scene, things=tuple(things)))
        return frames

    def _questions(self, scene: Scene, motions: list[str], draws: Draws) -> list[Question]:
        """Of a thing that its colour and shape name alone; the motion first."""
        names = [(thing.colour, thing.shape) for thing in scene.things]
        alone = [place for place, name in enumerate(names) if names.count(name) == 1] or [0]
        place = draws.pick(alone)
        thing, motion = scene.things[place], motions[place]
        asked = [self._ask_motion(f"{thing.colour} {thing.shape}", motion)]
        if len(scene.things) == 1:
            asked += [
                Question("what colour is it?", thing.colour, "colour"),
                Question("what shape is it?", thing.shape, "shape"),
            ]
        return asked

    def _ask_motion(self, name: str, motion: str) -> Question:
        if set(self.motions) <= set(DIRECTIONS):
            return Question(f"which way is the {name} moving?", motion, "motion")
        return Question(f"what is the {name} doing?", MOTION_WORDS[motion][0], "motion")


def _around_the_edges(thing: Thing) -> list[Thing]:
    """The thing with its centre in the picture, and as often again as it reaches out of one side and into the other."""
    x, y, reach = thing.x % 1.0, thing.y % 1.0, thing.radius + 0.06  # what its shadow needs
    columns = [0, *([1] if x < reach else []), *([-1] if x > 1 - reach else [])]
    rows = [0, *([1] if y < reach else []), *([-1] if y > 1 - reach else [])]
    return [replace(thing, x=x + column, y=y + row) for column in columns for row in rows]


def _caption(scene: Scene, motions: list[str], draws: Draws) -> str:
    return " and ".join(
        f"{phrase(thing, draws)} {draws.pick(MOTION_WORDS[motion])}"
        for thing, motion in zip(scene.things, motions, strict=True)
    )
