"""Videos of the embedded world: repeatable, told truly, and not told by any single frame."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vlmtrain.data.forms.video_captioning import VideoCaptioning
from vlmtrain.data.loading import prepare
from vlmtrain.data.scene_videos import SceneVideos
from vlmtrain.data.scenes.draws import Draws
from vlmtrain.data.scenes.things import Scene
from vlmtrain.data.scenes.video_judge import VideoJudge
from vlmtrain.data.scenes.videos import DIRECTIONS, MOTIONS, MakeVideo
from vlmtrain.data.transforms import ImageTransform
from vlmtrain.layout import Text, Visual
from vlmtrain.nn.tile_sizes import Squares


def test_the_same_seed_and_index_give_the_same_bytes() -> None:
    make = MakeVideo(4, 2, MOTIONS)
    assert make(1, "train", 7, 24) == make(1, "train", 7, 24) != make(1, "train", 8, 24)


def test_frames_are_in_motion_and_every_frame_is_as_likely_for_every_direction() -> None:
    """On a ring, a place that is uniform and independent of the direction stays so after any step."""
    make = MakeVideo(5)
    first: dict[str, list[float]] = {motion: [] for motion in DIRECTIONS}
    for index in range(1200):
        line = make(0, "train", index, 16).line if index < 12 else None
        scene = Scene.from_json(line["scene"]) if line else _scene()
        motion = line["motions"][0] if line else list(DIRECTIONS)[index % 4]
        frames = make._frames(scene, [motion], Draws("test", index))
        places = [(frame.things[0].x, frame.things[0].y) for frame in frames]
        steps = np.diff(np.array(places), axis=0)
        steps = (steps + 0.5) % 1.0 - 0.5
        wanted = np.array(DIRECTIONS[motion])
        assert (np.sign(np.round(steps, 6)) == wanted).all(), motion
        first[motion].append(places[0][0])
    means = [np.mean(places) for places in first.values()]
    assert all(abs(mean - 0.5) < 0.07 for mean in means), means


def _scene() -> Scene:
    return Scene.from_json(MakeVideo(2)(0, "train", 0, 16).line["scene"])


def test_what_leaves_at_one_side_comes_in_at_the_other() -> None:
    make = MakeVideo(9)
    scene = _scene()
    for index in range(60):
        for frame in make._frames(scene, ["right"], Draws("edge", index)):
            centres = [(thing.x, thing.y) for thing in frame.things]
            assert 0 <= centres[0][0] < 1 and 0 <= centres[0][1] < 1
            reach = frame.things[0].radius
            crosses = sum(not reach <= place <= 1 - reach for place in centres[0])
            assert len(centres) >= 2**crosses, "a thing that reaches over an edge is drawn again at the other side"


@pytest.mark.parametrize("num_things", [1, 2])
def test_captions_and_questions_are_true(num_things: int, tmp_path: Path) -> None:
    data = SceneVideos(str(tmp_path), 0, 40, 2, 1, num_frames=2, num_things=num_things, motions=MOTIONS)
    judge, asked = VideoJudge(), Counter[str]()
    for index in range(40):
        record = data.train.read(index)
        assert all(judge(caption, record).correct for caption in record.captions)
        question = record.extra["questions"][0]
        asked[question["answer"]] += 1
        assert any(question["answer"].endswith(motion) for motion in record.extra["motions"])
        turned = {"left": "right", "right": "left", "up": "down", "down": "up", "growing": "shrinking"}
        wrong = record.captions[0].split(" ")
        wrong[-1] = turned.get(wrong[-1], "growing")
        verdict = judge(" ".join(wrong), record)
        assert not verdict.correct and verdict.aspects["things_right"] == (len(record.extra["motions"]),) * 2
        assert verdict.aspects["motions_right"][0] == len(record.extra["motions"]) - 1 or num_things == 2
    assert len(asked) == len(MOTIONS)
    assert not judge("a red circle", record).correct and not judge("", record).correct


def test_they_go_through_the_users_source_and_form(tmp_path: Path) -> None:
    data = SceneVideos(str(tmp_path), 0, 3, 2, 1, num_frames=4)
    record = data.evaluation["test"].read(0)
    parts = VideoCaptioning(8).parts(record, 1)
    assert parts[0] == Visual(images=(0, 1, 2, 3)) and isinstance(parts[1], Text) and parts[1].supervised
    prepared = prepare(record, parts, ImageTransform(Squares(16)), 1)
    assert prepared.items[0].shape == (4, 3, 16, 16) and prepared.parts[0] == Visual(4, (0, 1, 2, 3))
    assert VideoCaptioning(2, "it is").prompt_parts(record) == [Visual(images=(1, 3)), Text("it is", False)]
    assert VideoCaptioning(1).prompt_parts(record) == [Visual(images=(2,))]
    assert record.extra["questions"][0]["text"].startswith("which way")


@pytest.mark.parametrize("wrong", [{"motions": ["sideways"]}, {"motions": []}, {"num_frames": 1}, {"num_things": 3}])
def test_wrong_arguments_are_named(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SceneVideos(str(tmp_path), **wrong)
