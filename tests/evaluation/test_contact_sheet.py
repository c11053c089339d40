import io

from PIL import Image

from vlmtrain.evaluation.contact_sheet import contact_sheet


def picture(colour: str) -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(held, format="PNG")
    return held.getvalue()


def test_one_image_is_itself_and_several_stand_in_reading_order():
    assert contact_sheet([]) == b"" and contact_sheet([b"as it is"]) == b"as it is"
    sheet = Image.open(io.BytesIO(contact_sheet([picture("red"), b"broken", picture("blue")])))
    side = sheet.width // 2
    assert sheet.size == (2 * side, 2 * side)
    assert sheet.getpixel((side // 2, side // 2)) == (255, 0, 0)
    assert sheet.getpixel((side // 2, side + side // 2)) == (0, 0, 255)
    assert sheet.getpixel((side + side // 2, side // 2)) == sheet.getpixel((side + side // 2, side + side // 2))
