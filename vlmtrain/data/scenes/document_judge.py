"""Judges what is written about the last picture of a document, and tells when it is true of an earlier one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from vlmtrain.data.scenes.judging import judge
from vlmtrain.data.scenes.scene_judge import SceneJudge, SceneVerdict
from vlmtrain.data.scenes.things import Scene


class _RecordWithScenes(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def extra(self) -> Mapping[str, Any]: ...


class DocumentJudge:
    """As SceneJudge, of the last picture; the aspect `of_an_earlier_image` is the share of texts that are right of
    another picture of the document instead: what a model gets that reads the wrong one.
    """

    def __call__(self, text: str, record: _RecordWithScenes, /) -> SceneVerdict:
        scenes = [Scene.from_json(scene) for scene in record.extra.get("scenes", [])]
        if not scenes:
            raise ValueError(f"Record {record.key!r} carries no scenes: judge it by SceneJudge or by word overlap.")
        verdict: SceneVerdict = SceneJudge()(text, record)
        earlier = any(judge(text, scene).correct for scene in scenes[:-1]) and not verdict.correct
        return replace(verdict, aspects={**verdict.aspects, "of_an_earlier_image": (float(earlier), 1.0)})
