"""The embedded world for Pic2Word: images alone to learn from, queries with their candidates."""

from pathlib import Path

import pytest

from vlmtrain.data.forms.image_in_prompt import ImageInPrompt
from vlmtrain.data.scene_compositions import SceneCompositions
from vlmtrain.data.scenes.compositions import CANDIDATES
from vlmtrain.data.scenes_data import Scenes
from vlmtrain.data.sources.base import Source
from vlmtrain.layout import Text, Visual


def test_t31_training_is_images_only_and_every_target_is_among_the_candidates(tmp_path: Path) -> None:
    scenes = Scenes(str(tmp_path / "scenes"), num_train=6, num_test=0, num_compositional=0, num_processes=1)
    data = SceneCompositions(str(tmp_path / "queries"), scenes, num_test=3, num_compositional=2, num_processes=1)
    assert isinstance(data.train, Source) and len(data.train) == 6 and data.together == 1
    assert data.train.fingerprint != scenes.train.fingerprint and "without captions" in data.train.name
    for index in range(6):
        record = data.train.read(index)
        assert record.images == scenes.train.read(index).images and record.key == data.train.key(index)
        assert record.captions == [] and record.extra == {}
        assert ImageInPrompt().parts(record, index) == [Text("a photo of"), Visual()]
    assert set(data.evaluation) == {"test", "compositional", "test_candidates", "compositional_candidates"}
    for split, count in (("test", 3), ("compositional", 2)):
        queries, candidates = data.evaluation[split], data.evaluation[f"{split}_candidates"]
        assert len(queries) == count and len(candidates) == count * CANDIDATES
        labels = [candidates.read(index).extra["label"] for index in range(len(candidates))]
        for index in range(count):
            asked = queries.read(index)
            assert labels.count(asked.extra["target"]) >= 1 and asked.extra["shown"] in labels
            assert {"query", "words"} <= set(asked.extra) and asked.image


def test_a_split_of_none_is_left_out(tmp_path: Path) -> None:
    scenes = Scenes(str(tmp_path / "scenes"), num_train=2, num_test=0, num_compositional=0, num_processes=1)
    data = SceneCompositions(str(tmp_path / "queries"), scenes, num_test=1, num_compositional=0, num_processes=1)
    assert set(data.evaluation) == {"test", "test_candidates"}


@pytest.mark.parametrize(
    ("prompt", "parts"), [("*", [Visual()]), ("a * in blue", [Text("a"), Visual(), Text(" in blue")])]
)
def test_the_prompt_is_the_same_with_and_without_training(prompt: str, parts: list[Text | Visual]) -> None:
    form = ImageInPrompt(prompt)
    assert form.parts(None, 3) == form.prompt_parts(None) == parts  # type: ignore[arg-type]


def test_a_prompt_without_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has 0 \*"):
        ImageInPrompt("a photo")
