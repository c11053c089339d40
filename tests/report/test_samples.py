from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFont

from vlmtrain.report.pictures import open_picture, to_data_uri
from vlmtrain.report.sample_grid import draw_grid, wrap
from vlmtrain.report.sample_page import PageHeading
from vlmtrain.report.samples import write_samples

FONT = ImageFont.load_default(20)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(alphabet="abcWi.", min_size=1, max_size=40), max_size=12))
def test_wrapped_lines_fit_and_lose_nothing(words):
    lines = wrap(" ".join(words), FONT, 120, most_lines=1000)
    assert all(FONT.getlength(line) <= 120 for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(words)
    cut = wrap(" ".join(words), FONT, 120, most_lines=3)
    assert cut == lines if len(lines) <= 3 else len(cut) == 3 and cut[-1].endswith("...")


def test_both_files_are_written(tmp_path, make_outcome):
    outcomes = [make_outcome(correct=flag) for flag in (True, False, None)] * 4
    outcomes += [make_outcome(split="compositional", text="long " * 60), make_outcome(task="retrieval")]
    grid, page = write_samples(tmp_path / "samples", outcomes, PageHeading("blip2_opt", "x" * 500))
    with Image.open(grid) as picture:
        assert picture.size[0] == 1716 and picture.size[1] > 1500
    assert page.name == "index.html" and "blip2_opt" in page.read_text()
    assert sorted(path.name for path in grid.parent.iterdir()) == ["index.html", "samples.png"]


def test_nothing_to_show_is_no_fault(tmp_path):
    write_samples(tmp_path, [], PageHeading("t"))
    draw_grid([], tmp_path / "x.png", "t")


def test_pictures_of_every_kind_are_fitted(jpeg, caplog):
    assert open_picture(jpeg(size=(400, 100)), 64).size == (64, 64)
    assert open_picture(jpeg(size=(5, 9)), 64).size == (64, 64)
    assert caplog.text == ""
    assert open_picture(b"no image", 64).size == (64, 64)
    assert open_picture(jpeg(size=(400, 300))[:500], 64).size == (64, 64)
    assert caplog.text.count("cannot be shown") == 2
    assert to_data_uri(jpeg(), 16).startswith("data:image/jpeg;base64,/9j/")


def test_an_image_bomb_is_not_opened(jpeg, monkeypatch, caplog):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_picture(jpeg(), 32).size == (32, 32)
    assert "cannot be shown" in caplog.text
