"""Judges captions of videos: the things with all their attributes, and what each of them does."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from vlmtrain.data.scenes.parsing import ParseError, parse
from vlmtrain.data.scenes.scene_judge import SceneVerdict
from vlmtrain.data.scenes.things import Scene
from vlmtrain.data.scenes.videos import MOTION_WORDS

Told = tuple[tuple[str, ...], str]  # attributes, motion


class _RecordOfVideo(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


class VideoJudge:
    """Right is a caption that names every thing once, with its attributes and its motion.

    Aspects: `things_right` and `motions_right` count against the larger of the named and the shown things.
    """

    def __call__(self, text: str, record: _RecordOfVideo, /) -> SceneVerdict:
        if "motions" not in record.extra:
            raise ValueError(f"Record {record.key!r} carries no motions: judge it by word overlap.")
        things = Scene.from_json(record.extra["scene"]).things
        shown: list[Told] = [
            (thing.attributes, motion) for thing, motion in zip(things, record.extra["motions"], strict=True)
        ]
        try:
            told = [_read(clause) for clause in text.split(" and ")]
        except ParseError as error:
            return SceneVerdict(False, f"is no caption: {error}", _shares([], shown), ())
        wrong = [motion for _, motion in (Counter(told) - Counter(shown)).elements()]
        reason = f"not everything {' and '.join(wrong)} is right" if wrong else "names too few things"
        is_right = Counter(told) == Counter(shown)
        return SceneVerdict(is_right, "right" if is_right else reason, _shares(told, shown), ())


def _read(clause: str) -> Told:
    for motion, wordings in MOTION_WORDS.items():
        for words in wordings:
            if clause.endswith(f" {words}"):
                things = parse(clause.removesuffix(f" {words}")).things
                if len(things) != 1:
                    raise ParseError(f"{len(things)} things do one thing")
                return tuple(things[0].attributes), motion
    raise ParseError(f"nothing moves in {clause[:40]!r}")


def _shares(told: list[Told], shown: list[Told]) -> dict[str, tuple[float, float]]:
    most = float(max(len(told), len(shown)))
    things = Counter(thing for thing, _ in told) & Counter(thing for thing, _ in shown)
    motions = Counter(motion for _, motion in told) & Counter(motion for _, motion in shown)
    return {"things_right": (things.total(), most), "motions_right": (motions.total(), most)}
