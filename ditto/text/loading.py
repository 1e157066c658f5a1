"""Loading of Hugging Face's processors and tokenizers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

_VIDEO = "video_processor"


class NoVideos:
    """Stand-in for the class of transformers that loads video processors: loads none."""

    @staticmethod
    def from_pretrained(*_: Any, **__: Any) -> None:
        return None


def automatic(directory: str | Path, *, has_images: bool) -> Any:
    """The processor of a directory or hub id, or its tokenizer alone.

    Raises:
        Exception: transformers cannot load it.
    """
    from transformers import AutoProcessor, AutoTokenizer

    if not has_images:
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    with without_videos():
        return AutoProcessor.from_pretrained(directory, trust_remote_code=False)


@contextmanager
def without_videos() -> Generator[None]:
    """Context in which processors come without their video part, which needs torchvision.

    Videos are not supported, so that nothing is lost. For transformers 5; remove it when transformers loads such
    processors by itself.
    """
    from transformers import processing_utils

    loaders: Any = getattr(processing_utils, "MODALITY_TO_AUTOPROCESSOR_MAPPING", None)
    if loaders is None:
        yield
        return
    mixin: Any = processing_utils.ProcessorMixin
    check = mixin.check_argument_for_proper_class

    def checked(processor: Any, name: str, argument: Any) -> Any:
        return None if name == _VIDEO and argument is None else check(processor, name, argument)

    with (
        patch.dict(loaders._MAPPING_NAMES, {_VIDEO: (__name__, NoVideos.__name__)}),
        patch.object(mixin, "check_argument_for_proper_class", checked),
    ):
        yield
