"""Images are read as Hugging Face reads them; greyscale of more than 8 bits like its twin of 8."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers.image_utils import load_image as hugging_face

from ditto.errors import PromptError
from ditto.text.images import load_image, load_images
from tests.support.hostile import FILES, GREY, content, special

WIDE = GREY.astype(np.uint16)
TWIN = np.asarray(Image.fromarray(GREY).convert("RGB"))


def _colours(width: int = 12, height: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _oriented(kind: str, tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return content(_colours(), kind, exif=exif)


def _transparent() -> Image.Image:
    return Image.merge("RGBA", (*_colours().split(), _colours().getchannel(0)))


FORMS = {
    **{f"{kind}, orientation {tag}": _oriented(kind, tag) for kind in ("JPEG", "PNG", "TIFF") for tag in range(10)},
    **{f"WEBP, orientation {tag}": _oriented("WEBP", tag) for tag in (1, 3, 6, 8)},
    "transparent": content(_transparent(), "PNG"),
    "grey and transparent": content(_transparent().convert("LA"), "PNG"),
    "a palette": content(_colours().quantize(16), "PNG"),
    "a palette with a transparent colour": content(_colours().quantize(16), "PNG", transparency=3),
    "a palette with transparencies": content(_colours().quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
    "black and white": content(_colours().convert("1"), "PNG"),
    "CMYK": content(_colours().convert("CMYK"), "JPEG"),
    "CMYK in TIFF": content(_colours().convert("CMYK"), "TIFF"),
    "YCbCr": content(_colours().convert("YCbCr"), "TIFF"),
    "white is zero": content(Image.fromarray(GREY), "TIFF", tiffinfo={262: 0}),
    "an animation": content(_colours(), "GIF", save_all=True, append_images=[_colours(12, 20).rotate(180)]),
    "an animated PNG": content(_colours(), "PNG", save_all=True, append_images=[_colours().rotate(180)]),
    "pages": content(_colours(), "TIFF", save_all=True, append_images=[_colours().rotate(180)]),
    "a profile": content(_colours(), "PNG", icc_profile=b"not a profile"),
}


@pytest.mark.parametrize("name", FORMS)
def test_an_image_is_what_hugging_face_makes_of_it(name, tmp_path):
    (tmp_path / "image").write_bytes(FORMS[name])
    wanted = np.asarray(hugging_face(str(tmp_path / "image")))
    for given in (tmp_path / "image", str(tmp_path / "image"), FORMS[name], Image.open(io.BytesIO(FORMS[name]))):
        assert np.array_equal(np.asarray(load_image(given)), wanted)


WIDE_FORMS = {
    "PNG": lambda: content(Image.fromarray(WIDE * 257), "PNG"),
    "PNG, lower bits 0": lambda: content(Image.fromarray(WIDE * 256), "PNG"),
    "TIFF": lambda: content(Image.fromarray(WIDE * 257), "TIFF"),
    "TIFF, high byte first": lambda: content(Image.fromarray((WIDE * 257).astype(">u2")), "TIFF"),
    "TIFF, white is zero": lambda: content(Image.fromarray(65535 - WIDE * 257), "TIFF", tiffinfo={262: 0}),
    "PGM": lambda: content(Image.fromarray(WIDE * 257), "PPM"),
    "JPEG 2000": lambda: content(Image.fromarray(WIDE * 257), "JPEG2000", irreversible=False),
    "floating from 0 to 1": lambda: content(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"),
    "floating from 0 to 255": lambda: content(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
    "32 bits from 0 to 255": lambda: content(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
}


@pytest.mark.parametrize("name", WIDE_FORMS)
def test_greyscale_of_more_bits_is_like_its_twin_of_8(name, tmp_path):
    (tmp_path / "image").write_bytes(WIDE_FORMS[name]())
    for given in (tmp_path / "image", WIDE_FORMS[name](), Image.open(io.BytesIO(WIDE_FORMS[name]()))):
        assert np.array_equal(np.asarray(load_image(given)), TWIN)


def test_wide_greyscale_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    given = content(Image.fromarray(WIDE[:4] * 257), "PNG", exif=exif)
    assert np.array_equal(np.asarray(load_image(given)), np.rot90(TWIN[:4], -1))


def test_an_image_of_a_caller_stays_open_and_unchanged():
    given = Image.open(io.BytesIO(FORMS["an animation"]))
    load_image(given)
    given.seek(1)
    assert given.mode in ("P", "RGB")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_an_image_is_named(name, tmp_path):
    made, message = FILES[name]
    (tmp_path / "image").write_bytes(made())
    for given in (tmp_path / "image", made()):
        with pytest.raises(PromptError, match=message) as caught:
            load_image(given)
        assert caught.value.exit_code == 2
        assert caught.value.remedy


def test_what_is_not_a_file_is_named_at_once(tmp_path):
    for path, message in special(tmp_path).values():
        with pytest.raises(PromptError, match=message) as caught:
            load_image(path)
        assert caught.value.where == path


@pytest.mark.parametrize("given", [None, 3, [Path("a.png")]], ids=str)
def test_what_is_neither_file_nor_image_is_named_by_its_type(given):
    with pytest.raises(PromptError, match=f"an image is a {type(given).__name__}"):
        load_image(given)


def test_arrays_and_data_urls_are_the_image_that_they_hold(tmp_path):
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    image.save(tmp_path / "image.png")
    url = "data:image/png;base64," + base64.b64encode((tmp_path / "image.png").read_bytes()).decode()
    for given in (url, np.asarray(image), tmp_path / "image.png"):
        assert np.array_equal(np.asarray(load_image(given)), np.asarray(image))
    grey = np.full((2, 3), 7, np.uint8)
    assert np.array_equal(np.asarray(load_image(grey)), np.full((2, 3, 3), 7))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"an array float32 \[4, 4, 3\]"),
        (np.zeros((3, 5, 6), np.uint8), r"an array uint8 \[3, 5, 6\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"an array uint8 \[1, 4, 4, 3\]"),
        ("data:image/png,abc", "it is not base64"),
        ("data:image/png;base64,ab!c", "the data URL cannot be read"),
        ("data:image/png;base64,YWJj", "this file is not an image"),
    ],
    ids=str,
)
def test_arrays_and_data_urls_that_hold_no_image_are_refused(given, message):
    with pytest.raises(PromptError, match=message):
        load_image(given)


@pytest.mark.parametrize("given", ["a.png", Path("a.png"), b"...", _colours(), np.zeros((2, 4, 4, 3), np.uint8), None])
def test_one_image_in_the_place_of_a_list_is_named(given):
    with pytest.raises(PromptError, match=f"the images are a {type(given).__name__}, not a list") as caught:
        load_images(given)
    assert caught.value.remedy == "give a list, e.g. [image]"


def test_formats_that_start_other_programs_are_refused():
    with pytest.raises(PromptError, match="not an image"):
        load_image(content(_colours(), "EPS"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "MPO", "TGA", "ICO"])
def test_raster_formats_are_read(kind):
    assert load_image(content(_colours(), kind)).mode == "RGB"
