"""T31: a folder of images, with nothing said about them."""

from pathlib import Path

import pytest

from vlmtrain.data.images import Images
from vlmtrain.data.record import BrokenSample
from vlmtrain.data.sources.base import Source
from vlmtrain.data.sources.image_folder import ImageFolder


def fill(folder: Path) -> Path:
    (folder / "below").mkdir(parents=True)
    for name in ("b.jpg", "below/a.PNG", "note.txt", "below/c.webp"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_t31_all_images_of_a_folder_and_no_caption(tmp_path: Path) -> None:
    source = ImageFolder(str(fill(tmp_path / "photos")))
    assert isinstance(source, Source)
    assert [source.key(index) for index in range(len(source))] == ["b.jpg", "below/a.PNG", "below/c.webp"]
    record = source.read(1)
    assert record.image == b"below/a.PNG" and record.captions == [] and record.extra == {}
    before = source.fingerprint
    (tmp_path / "photos" / "d.gif").write_bytes(b"new")
    assert ImageFolder(str(tmp_path / "photos")).fingerprint != before
    (tmp_path / "photos" / "b.jpg").unlink()
    with pytest.raises(BrokenSample, match=r"b\.jpg"):
        source.read(0)


def test_links_that_lead_out_are_left_out_and_an_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "outside.jpg").write_bytes(b"secret")
    photos = fill(tmp_path / "photos")
    (photos / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    assert len(ImageFolder(str(photos))) == 3
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="hold no image"):
        ImageFolder(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="no folder"):
        ImageFolder(str(tmp_path / "missing"))


def test_a_share_is_held_out(tmp_path: Path) -> None:
    data = Images(str(fill(tmp_path / "photos")), held_out=0.4)
    assert len(data.train) + len(data.evaluation["held_out"]) == 3 and len(data.evaluation["held_out"]) >= 1
    with pytest.raises(ValueError, match="held_out=1"):
        Images(str(tmp_path / "photos"), held_out=1.0)
