"""Loading of Hugging Face's processors and tokenizers."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

_VIDEO = "video_processor"


class NoVideos(dict[str, Any]):
    """Stand-in for a video processor, with the attributes that processors read when they are made.

    An empty dictionary, because processors print themselves as JSON.
    """

    model_input_names: ClassVar[list[str]] = []
    slice_mode = False
    downsample_mode = None

    @staticmethod
    def from_pretrained(*_: Any, **__: Any) -> NoVideos:
        return NoVideos()


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
        absent = argument is None or isinstance(argument, NoVideos)
        return None if name == _VIDEO and absent else check(processor, name, argument)

    with (
        patch.dict(loaders._MAPPING_NAMES, {_VIDEO: (__name__, NoVideos.__name__)}),
        patch.object(mixin, "check_argument_for_proper_class", checked),
    ):
        yield
