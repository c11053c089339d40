"""Judges generated captions of records that carry their scene, as the captioning evaluation asks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vlmtrain.data.scenes.judging import judge
from vlmtrain.data.scenes.things import Scene, held_out_pairs, held_out_relations


class _RecordWithScene(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class SceneVerdict:
    """Right or wrong, why, and the shares of things and relations that are right."""

    correct: bool
    reason: str
    aspects: Mapping[str, tuple[float, float]]
    groups: Sequence[str]


class SceneJudge:
    """Right is a caption that names every thing with all its attributes and only true relations.

    Aspects: `things_right` counts against the larger of the named and the drawn things, so that neither leaving out
    nor listing many helps; `relations_right` counts the relations that the caption claims.  Groups: records with a
    colour-shape pair, or a combination of shapes and relation, that training never shows.

    Of a document's last picture, `earlier_picture_told` counts the wrong captions that are right of one before it.

    Records without a scene, as of the user's own pictures, are judged by `otherwise`; ValueError where there is none.
    """

    def __init__(self, otherwise: Callable[..., Any] | None = None) -> None:
        self.otherwise = otherwise

    def __call__(self, text: str, record: _RecordWithScene, /) -> Any:
        """A SceneVerdict, or what `otherwise` says."""
        if "scene" not in record.extra:
            if self.otherwise is not None:
                return self.otherwise(text, record)
            raise ValueError(
                f"Record {record.key!r} carries no scene to judge captions by. "
                f"For data other than scenes use the judge vlmtrain.evaluation.word_overlap.WordOverlap, "
                f"here or as `otherwise`."
            )
        scene = Scene.from_json(record.extra["scene"])
        verdict = judge(text, scene)
        groups = {"held_out_pairs": held_out_pairs(scene), "held_out_relations": held_out_relations(scene)}
        return SceneVerdict(
            correct=verdict.correct,
            reason=verdict.reason,
            aspects={
                "things_right": (verdict.right_things, max(verdict.named_things, len(scene.things))),
                "relations_right": (verdict.true_relations, verdict.spoken_relations),
                **_told_of_earlier(text, verdict.correct, record.extra.get("scenes", [])[:-1]),
            },
            groups=tuple(name for name, found in groups.items() if found),
        )


def _told_of_earlier(text: str, is_correct: bool, earlier: list[Any]) -> dict[str, tuple[float, float]]:
    """Nothing where there is no earlier picture."""
    if not earlier:
        return {}
    is_earlier = not is_correct and any(judge(text, Scene.from_json(scene)).correct for scene in earlier)
    return {"earlier_picture_told": (float(is_earlier), 1.0)}
