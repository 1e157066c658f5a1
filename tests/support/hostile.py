"""Files that are not what they should be: images, and the files of a processor."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GREY = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)


def content(image: Image.Image, kind: str, **settings: Any) -> bytes:
    """An image as the bytes of a file."""
    made = io.BytesIO()
    image.save(made, kind, **settings)
    return made.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of a stated size with chunks as given, checksums included."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IEND", b"")]
    body = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def _whole() -> bytes:
    return content(Image.effect_noise((64, 64), 50).convert("RGB"), "PNG")


# Image files that are refused: their content, and what is said.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "this file is not an image"),
    "text": (lambda: b"no image", "this file is not an image"),
    "a web page": (lambda: b"<html><body>404</body></html>", "this file is not an image"),
    "a PNG's first bytes": (lambda: _whole()[:8], "this file is not an image"),
    "a PNG cut within its pixels": (lambda: _whole()[:2000], "the image cannot be read"),
    "a JPEG cut within its pixels": (
        lambda: content(Image.new("RGB", (640, 480), "red"), "JPEG")[:700],
        "the image cannot be read",
    ),
    "a PNG whose pixels are garbage": (
        lambda: png(64, 64, (b"IDAT", b"garbage" * 9)),
        "the image cannot be read",
    ),
    "a decompression bomb": (
        lambda: png(60_000, 60_000, (b"IDAT", zlib.compress(bytes(1000)))),
        "the image cannot be read: Image size",
    ),
    "a text chunk that is a bomb": (
        lambda: png(4, 4, (b"zTXt", b"comment\0\0" + zlib.compress(bytes(80_000_000), 9)), (b"IDAT", b"")),
        "the image cannot be read: Decompressed data too large",
    ),
    "32-bit integers": (
        lambda: content(Image.fromarray(GREY.astype(np.int32) * 1000), "TIFF"),
        "go from 0 to 255000, and it does not say which is white",
    ),
    "numbers that are not": (
        lambda: content(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
        "go from nan to nan",
    ),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "this file is not an image"),
}


def special(directory: Path) -> dict[str, tuple[str, str]]:
    """Paths that are not files, and what is said of each."""
    os.mkfifo(directory / "pipe")
    (directory / "gone").symlink_to(directory / "nowhere")
    return {
        "a pipe": (str(directory / "pipe"), "the image is a pipe or a device"),
        "a device": ("/dev/zero", "the image is a pipe or a device"),
        "a directory": (str(directory), "the image is a directory"),
        "no file": (str(directory / "no.png"), "there is no such image"),
        "a link that leads nowhere": (str(directory / "gone"), "there is no such image"),
        "an empty name": ("", "there is no such image"),
        "an address": ("https://example.org/a.png", "there is no such image"),
        "a long name": ("a" * 5000, "the image cannot be read"),
        "a name with a zero": ("a\0b", "the image cannot be read"),
    }


def change(name: str, **entries: Any) -> Callable[[Path], object]:
    """Change entries of a JSON file in a directory; None takes one out."""

    def work(directory: Path) -> None:
        path = directory / name
        data = {**json.loads(path.read_text()), **entries}
        path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))

    return work


def write(name: str, text: bytes) -> Callable[[Path], object]:
    """Put something else in a file's place."""
    return lambda directory: (directory / name).write_bytes(text)


# What is wrong with a processor's directory, and what is said: by whoever meets it first.
PROCESSORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a patch size of 0": (change("processor_config.json", patch_size=0), "the processor cannot take prompt 1"),
    "a patch size in words": (
        change("processor_config.json", patch_size="large"),
        "the processor cannot take prompt 1",
    ),
    "another patch size": (change("processor_config.json", patch_size=7), "rows of image features"),
    "a strategy of its own": (
        change("processor_config.json", vision_feature_select_strategy="full"),
        "rows of image features",
    ),
    "another number of tokens": (
        change("processor_config.json", num_additional_image_tokens=9),
        "rows of image features",
    ),
    "no deviation": (change("preprocessor_config.json", image_std=[0.0, 0.0, 0.0]), "are not finite numbers"),
    "a deviation in words": (change("preprocessor_config.json", image_std="wide"), "the processor cannot"),
    "images of another size": (
        change("preprocessor_config.json", crop_size={"height": 28, "width": 28}, size={"shortest_edge": 28}),
        "the vision engine expects",
    ),
    "a tokenizer that is half there": (
        lambda directory: (directory / "tokenizer.json").write_bytes(
            (directory / "tokenizer.json").read_bytes()[:1000]
        ),
        "transformers cannot load the",
    ),
    "a tokenizer nested without end": (write("tokenizer.json", b'{"model":' * 100_000), "transformers cannot load the"),
    "a configuration nested without end": (
        write("processor_config.json", b'{"a":' * 100_000),
        "transformers cannot load",
    ),
    "bytes": (write("preprocessor_config.json", b"\xff\xfe\0"), "transformers cannot load the"),
    "an unknown image processor": (
        change("preprocessor_config.json", image_processor_type="Nothing", processor_class=None),
        "transformers cannot load the",
    ),
    "nothing": (lambda directory: [path.unlink() for path in directory.iterdir()], "transformers cannot load the"),
}
