"""Loading of images for the processor, from files and from memory."""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from ditto.errors import PromptError

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

# A file path or `data:` URL, the content of a file, a Pillow image, or an array uint8 [height, width (, channels)].
ImageInput: TypeAlias = Union[str, "os.PathLike[str]", bytes, "Image", "numpy.ndarray"]

_DATA_URL = "data:"

_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
# Raster formats that Pillow decodes by itself: no plugin that starts another program (EPS: Ghostscript).
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "TGA", "ICO", "AVIF")
# Formats whose integers Pillow scales to 16 bits, whatever the image's mode.
_SIXTEEN_BITS = ("PNG", "PPM")


def load_image(image: ImageInput, max_pixels: int | None = None) -> Image:
    """Load an RGB image as Hugging Face's `load_image` does.

    It is rotated by its EXIF orientation; only the first frame is kept, without transparency and colour profile.
    Greyscale of more than 8 bits, which Hugging Face clips, is scaled to 8 bits.

    Args:
        max_pixels: larger images are refused before they are decoded.
    Raises:
        PromptError: the file does not exist, is not an image, is too large, or cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(image, str) and image.startswith(_DATA_URL):
        image = data_url_bytes(image)
    if hasattr(image, "__array_interface__") and not isinstance(image, Image.Image):
        image = _of_array(image)
    name = f"{len(image)} bytes" if isinstance(image, bytes) else str(image)
    try:
        with warnings.catch_warnings():
            # Warnings about size (Pillow rejects images of twice the size that it warns about) and ignored metadata.
            warnings.simplefilter("ignore")
            with nullcontext(image) if isinstance(image, Image.Image) else _opened(_source(image)) as opened:
                if max_pixels is not None and opened.width * opened.height > max_pixels:
                    raise PromptError(
                        f"an image of {opened.width} x {opened.height} pixels is larger than allowed here: "
                        f"{max(max_pixels, 0)} pixels are left",
                        remedy="make it smaller",
                    )
                return _in_8_bits(ImageOps.exif_transpose(opened), opened).convert("RGB")
    except UnidentifiedImageError as error:
        remedy = f"give a PNG or JPEG file; formats that are read: {', '.join(_FORMATS)}"
        raise PromptError("this file is not an image", where=name, remedy=remedy) from error
    except PromptError:
        raise
    except Exception as error:  # Pillow's decoders raise exceptions of many types for damaged files
        reason = (str(error) or type(error).__name__).splitlines()[0]
        remedy = "check the file, or save the image again as an 8-bit PNG or JPEG"
        raise PromptError(f"the image cannot be read: {reason}", where=name, remedy=remedy) from error


def _opened(source: Any) -> Image:
    from PIL import Image

    Image.init()  # a format that this Pillow lacks is no error
    return Image.open(source, formats=[name for name in _FORMATS if name in Image.OPEN])


def data_url_bytes(url: str) -> bytes:
    """Content of a `data:` URL.

    Raises:
        PromptError: it is not base64.
    """
    head, _, content = url.partition(",")
    try:
        if not head.endswith(";base64"):
            raise ValueError("it is not base64")
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PromptError(
            f"the data URL cannot be read: {error}", remedy="write data:image/png;base64, and the file in base64"
        ) from error


def _of_array(array: Any) -> Image:
    """The image of an array."""
    import numpy
    from PIL import Image

    array = numpy.asarray(array)
    if array.dtype != numpy.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise PromptError(
            f"an image is an array {array.dtype} {list(array.shape)}",
            remedy="give uint8 [height, width], or [height, width, 3] in the order red, green, blue",
        )
    return Image.fromarray(array)


def load_images(images: Any) -> list[Image]:
    """Load the images of a list.

    Raises:
        PromptError: it is not a list, or one of its images cannot be read.
    """
    if not isinstance(images, (list, tuple)):
        raise PromptError(
            f"the images are a {type(images).__name__}, not a list of images", remedy="give a list, e.g. [image]"
        )
    return [load_image(image) for image in images]


def _source(image: Any) -> Any:
    """The object that Pillow opens.

    Pipes and devices, which may never end, are refused.
    """
    if isinstance(image, bytes):
        return io.BytesIO(image)
    if not isinstance(image, (str, os.PathLike)):
        raise PromptError(
            f"an image is a {type(image).__name__}",
            remedy="give a file's path, its content as bytes, a PIL image, or an array",
        )
    name = str(image)
    try:
        mode = os.stat(image).st_mode
    except FileNotFoundError:
        remedy = "download it and give the file" if "://" in name else "check the path"
        raise PromptError("there is no such image", where=name, remedy=remedy) from None
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise PromptError(f"the image is {kind}, not a regular file", where=name, remedy="give a PNG or JPEG file")
    return image


def _in_8_bits(image: Image, opened: Image) -> Image:
    """Scale greyscale of more than 8 bits to 8 bits; other images stay unchanged.

    Integers of a known bit depth lose their lower bits, as in Pillow's own 16-bit RGB. Floating-point values from 0 to
    1 are read as image viewers do. 32-bit integers and other floating-point values have no defined range: up to 255
    they are read as Hugging Face does.

    Args:
        opened: the same image as opened, with the file's format and metadata.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    import numpy
    from PIL import Image as Images

    tags = getattr(opened, "tag_v2", {})
    values = numpy.asarray(image)
    if (image.mode == "I" and opened.format not in _SIXTEEN_BITS) or image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 255:
            raise PromptError(
                f"the image's values go from {low:g} to {high:g}, and it does not say which is white",
                where=str(getattr(opened, "filename", "") or "") or None,
                remedy="save it as an 8-bit or 16-bit PNG",
            )
        values = values * 255.0 if image.mode == "F" and high <= 1 else values
        values = numpy.rint(values)
    else:
        bits = tags.get(_TIFF_BITS, (16,))[0]
        values = values >> (bits - 8)
    small = values.astype(numpy.uint8)
    return Images.fromarray(255 - small if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO else small)
