"""Images as the processor takes them, from files and from memory."""

from __future__ import annotations

import io
import os
import stat
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from ditto.errors import PromptError

if TYPE_CHECKING:
    from PIL.Image import Image

# A file's path, a file's content, or an image of Pillow's.
ImageInput: TypeAlias = Union[str, "os.PathLike[str]", bytes, "Image"]

_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
# Formats whose integers Pillow brings to 16 bits, whatever the mode that it holds them in.
_SIXTEEN_BITS = ("PNG", "PPM")


def load_image(image: ImageInput) -> Image:
    """An RGB image, as Hugging Face's `load_image` makes it: turned as its EXIF orientation says, the first of several
    frames, without transparency and colour profile. Greyscale of more than 8 bits, which that clips, is scaled to 8.

    Raises:
        PromptError: there is no such file, it is not an image, or not one that can be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = f"{len(image)} bytes" if isinstance(image, bytes) else str(image)
    try:
        with warnings.catch_warnings():
            # Of sizes (Pillow refuses those twice as large as what it warns of) and of metadata that are left out.
            warnings.simplefilter("ignore")
            with nullcontext(image) if isinstance(image, Image.Image) else Image.open(_source(image)) as opened:
                return _in_8_bits(ImageOps.exif_transpose(opened), opened).convert("RGB")
    except UnidentifiedImageError as error:
        remedy = "give a PNG or JPEG file, or another that Pillow reads"
        raise PromptError("this file is not an image", where=name, remedy=remedy) from error
    except PromptError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever the damage leads to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        remedy = "check the file, or save the image again as an 8-bit PNG or JPEG"
        raise PromptError(f"the image cannot be read: {reason}", where=name, remedy=remedy) from error


def load_images(images: Any) -> list[Image]:
    """Images of a list.

    Raises:
        PromptError: it is not a list, or one of its images cannot be read.
    """
    if not isinstance(images, (list, tuple)):
        raise PromptError(
            f"the images are a {type(images).__name__}, not a list of images", remedy="give a list, e.g. [image]"
        )
    return [load_image(image) for image in images]


def _source(image: Any) -> Any:
    """What Pillow opens. Pipes and devices, which may never end, are refused."""
    if isinstance(image, bytes):
        return io.BytesIO(image)
    if not isinstance(image, (str, os.PathLike)):
        raise PromptError(
            f"an image is a {type(image).__name__}",
            remedy="give a file's path, its content as bytes, or a PIL image (of an array: PIL.Image.fromarray)",
        )
    name = str(image)
    try:
        mode = os.stat(image).st_mode
    except FileNotFoundError:
        remedy = "download it and give the file" if "://" in name else "check the path"
        raise PromptError("there is no such image", where=name, remedy=remedy) from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise PromptError(f"the image is {kind}, not a regular file", where=name, remedy="give a PNG or JPEG file")
    return image


def _in_8_bits(image: Image, opened: Image) -> Image:
    """Greyscale of more than 8 bits, scaled to 8; another image unchanged.

    Integers of a known number of bits lose the lower ones, as Pillow's own 16-bit RGB does. Floating numbers are read
    as viewers do if they go from 0 to 1. 32-bit integers and other floating numbers have no range of their own: up to
    255 they are read as Hugging Face does.

    Args:
        opened: the same as it was opened, with what the file says of itself.
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
