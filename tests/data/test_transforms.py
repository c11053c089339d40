"""Images of all kinds become the documented RGB, or a named fault; nothing crashes (fault matrix F18, F29)."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vlmtrain.data.decode import UndecodableImage, decode_image
from vlmtrain.data.transforms import ImageTransform
from vlmtrain.nn.tile_sizes import Squares


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    held = io.BytesIO()
    image.save(held, format, **options)
    return held.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return decode_image(data, 64_000_000, 32)


def png_of_size(width: int, height: int) -> bytes:
    """A valid 1-bit PNG of zeros, made without ever holding its pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = bytes(1 + -(-width // 8))
    squeezer = zlib.compressobj(9)
    body = b"".join(squeezer.compress(row * 100) for _ in range(height // 100)) + squeezer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_output_is_a_square_of_bytes(jpeg: Callable[..., bytes]) -> None:
    for resize in ("squash", "crop", "pad"):
        for size in ((24, 16), (16, 24), (32, 32), (100, 3)):
            pixels = ImageTransform(Squares(32), resize=resize)(jpeg(0, *size))
            assert pixels.shape == (3, 32, 32) and pixels.dtype == torch.uint8 and pixels.is_contiguous()


def test_resize_agrees_with_pillow(jpeg: Callable[..., bytes]) -> None:
    data = jpeg(0, 160, 120)
    ours = ImageTransform(Squares(48))(data).permute(1, 2, 0).numpy().astype(int)
    theirs = np.asarray(Image.open(io.BytesIO(data)).resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    assert abs(ours - theirs).max() <= 1


def test_image_of_the_right_size_is_left_alone(jpeg: Callable[..., bytes]) -> None:
    data = jpeg(0, 32, 32, "PNG")
    assert (
        ImageTransform(Squares(32))(data).permute(1, 2, 0).numpy() == np.asarray(Image.open(io.BytesIO(data)))
    ).all()


def test_crop_keeps_the_middle_and_pad_keeps_everything() -> None:
    picture = Image.new("RGB", (90, 30), (255, 0, 0))
    picture.paste((0, 255, 0), (30, 0, 60, 30))
    cropped = ImageTransform(Squares(30), resize="crop")(encoded(picture))
    assert (cropped[1] == 255).all() and (cropped[0] == 0).all()
    padded = ImageTransform(Squares(30), resize="pad")(encoded(picture))
    assert padded[:, 0, 0].tolist() == [122, 116, 104]
    assert padded[:, 15, 2].tolist()[0] > 240 and padded[:, 15, 15].tolist()[1] > 240


def test_augmentation_is_keyed(jpeg: Callable[..., bytes]) -> None:
    transform, data = ImageTransform(Squares(32), crop_scale=(0.3, 1.0), flip=True), jpeg(0, 64, 48)
    assert torch.equal(transform(data, 7), transform(data, 7))
    assert len({transform(data, key).numpy().tobytes() for key in range(20)}) > 15
    assert torch.equal(transform(data), transform(data, None)), "evaluation draws nothing"
    assert torch.equal(transform(data), ImageTransform(Squares(32))(data))


def test_flip_mirrors_about_half() -> None:
    ramp = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1))).convert("RGB")
    transform = ImageTransform(Squares(32), flip=True)
    mirrored = [bool(transform(encoded(ramp), key)[0, 0, 0] > 15) for key in range(200)]
    assert 70 < sum(mirrored) < 130


def test_random_crop_of_a_sliver_is_still_a_picture(jpeg: Callable[..., bytes]) -> None:
    assert ImageTransform(Squares(16), crop_scale=(0.1, 0.2))(jpeg(0, 200, 2), 3).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (bytes(5000), "not a JPEG"),
        (b"<!DOCTYPE html><html>404</html>", "not a JPEG"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not a JPEG"),
        (b"\xff\xd8\xff\xe0", "not a JPEG|does not decode"),
    ],
    ids=["empty", "zeros", "html", "svg", "only a magic number"],
)
def test_what_is_no_picture_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImage, match=reason):
        decoded(data)


@pytest.mark.parametrize("decoder", ["pillow", "simplejpeg"])
@pytest.mark.parametrize("progressive", [False, True])
def test_half_a_jpeg_is_no_picture(jpeg: Callable[..., bytes], decoder: str, progressive: bool) -> None:
    if decoder == "simplejpeg":
        pytest.importorskip("simplejpeg")
    whole = encoded(Image.open(io.BytesIO(jpeg(0, 200, 150))), "JPEG", progressive=progressive)
    transform = ImageTransform(Squares(32), decoder=decoder)  # type: ignore[arg-type]
    assert transform(whole).shape == (3, 32, 32)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(UndecodableImage):
            transform(whole[: int(len(whole) * share)])


def test_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = png_of_size(13_000, 13_000)
    assert len(bomb) < 40_000
    with pytest.raises(UndecodableImage, match=r"image bomb.*13000 x 13000.*64000000"):
        decoded(bomb)
    with pytest.raises(UndecodableImage, match="image bomb"):
        decoded(png_of_size(40_000, 40_000))


def test_very_large_image_is_shrunk_while_it_is_decoded() -> None:
    pixels = decode_image(png_of_size(7_000, 7_000), 64_000_000, 64)
    assert min(pixels.shape[:2]) >= 128 and max(pixels.shape[:2]) < 7_000 and (pixels == 0).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_strips_make_the_same_picture(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.effect_noise((203, 307), 90).convert("RGB").resize((406, 614)).convert(mode)
    whole = ImageTransform(Squares(32))(encoded(picture)).int()
    monkeypatch.setattr("vlmtrain.data.decode._LARGE", 100)
    monkeypatch.setattr("vlmtrain.data.decode._STRIP", 9000)
    shrunk = decode_image(encoded(picture), 10**6, 32)
    assert shrunk.shape == (103, 68, 3)
    assert (ImageTransform(Squares(32))(encoded(picture)).int() - whole).abs().float().mean() < 6


@pytest.mark.parametrize("size", [(1, 1), (1, 6000), (6000, 1), (2, 3)])
def test_odd_shapes(size: tuple[int, int]) -> None:
    for resize in ("squash", "crop", "pad"):
        pixels = ImageTransform(Squares(16), resize=resize)(encoded(Image.new("L", size, 255)))
        assert pixels.shape == (3, 16, 16) and (pixels.amax(dim=(1, 2)) == 255).all()


def test_cmyk() -> None:
    pixels = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert pixels.shape == (8, 8, 3) and pixels[4, 4, 0] > 200 and pixels[4, 4, 1] < 60


def test_sixteen_bit_grey_keeps_its_upper_byte() -> None:
    grey = Image.fromarray(np.full((8, 8), 0x80FF, dtype=np.uint16))
    assert (decoded(encoded(grey)) == 0x80).all()


def test_transparency_is_laid_over_white() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    grey = Image.new("LA", (8, 8), (0, 0))
    assert (decoded(encoded(clear)) == 255).all() and (decoded(encoded(grey)) == 255).all()
    assert abs(int(decoded(encoded(half))[0, 0, 0]) - 127) <= 1


def test_palette_with_transparency() -> None:
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.paste(2, (4, 0, 8, 8))
    pixels = decoded(encoded(picture, transparency=1))
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[0, 7].tolist() == [0, 255, 0]


def test_transparent_colour_of_plain_rgb() -> None:
    pixels = decoded(encoded(Image.new("RGB", (4, 4), (9, 9, 9)), transparency=(9, 9, 9)))
    assert (pixels == 255).all()


def test_bilevel_grey_and_animation() -> None:
    assert (decoded(encoded(Image.new("1", (8, 8), 1))) == 255).all()
    assert (decoded(encoded(Image.new("L", (8, 8), 77))) == 77).all()
    frames = [Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert decoded(data)[0, 0].tolist() == [255, 0, 0], format


@pytest.mark.parametrize("decoder", ["pillow", "simplejpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, decoder: str) -> None:
    if decoder == "simplejpeg":
        pytest.importorskip("simplejpeg")
    upright = np.zeros((16, 24, 3), dtype=np.uint8)
    upright[:8, :8] = 255  # white in the upper left corner, and wider than high
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    method = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(undo)
    stored = Image.fromarray(upright)
    stored = stored if method is None else stored.transpose(Image.Transpose(method))
    pixels = decode_image(encoded(stored, "JPEG", quality=95, exif=exif), 10**6, 8, decoder)  # type: ignore[arg-type]
    assert pixels.shape == (16, 24, 3)
    assert pixels[3, 3].min() > 200 and pixels[12, 20].max() < 50 and pixels[3, 20].max() < 50


def test_damaged_exif_is_no_orientation(jpeg: Callable[..., bytes]) -> None:
    data = encoded(Image.open(io.BytesIO(jpeg())), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage")
    assert decoded(data).shape == (16, 24, 3)


@pytest.mark.parametrize("format", ["TIFF", "ICO", "PPM"])
def test_formats_that_are_not_asked_for_are_not_parsed(format: str) -> None:
    with pytest.raises(UndecodableImage, match="not a JPEG"):
        decoded(encoded(Image.new("RGB", (8, 8)), format))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
@given(flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=12), cut=st.floats(0, 1))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_bytes_decode_or_are_refused(format: str, flips: list[tuple[float, int]], cut: float) -> None:
    data = bytearray(encoded(Image.effect_noise((40, 30), 80).convert("RGB"), format))
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    data = data[: len(data) - int(cut * 40)]
    with contextlib.suppress(UndecodableImage):
        assert ImageTransform(Squares(16))(bytes(data)).shape == (3, 16, 16)


def test_simplejpeg_gives_the_same_picture(jpeg: Callable[..., bytes]) -> None:
    pytest.importorskip("simplejpeg")
    data = jpeg(0, 160, 120)
    one, other = ImageTransform(Squares(64))(data), ImageTransform(Squares(64), decoder="simplejpeg")(data)
    assert (one.int() - other.int()).abs().float().mean() < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resize": "stretch"}, "resize='stretch'"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.9, 0.5)}, "crop_scale"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageTransform(**{"tile_sizes": Squares(32), **arguments})  # type: ignore[arg-type]
