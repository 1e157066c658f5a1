"""Processors load without their video part."""

from __future__ import annotations

import pytest
import transformers

from ditto.text.loading import automatic, without_videos
from tests.support.families import FAMILIES
from tests.support.models import TRANSFORMERS_5

# The second and third have a video part, which transformers 4 does not know; the third reads its settings.
NAMES = ["llava", "internvl", "minicpmv4_6"] if TRANSFORMERS_5 else ["llava"]


@pytest.mark.parametrize("name", NAMES)
def test_a_processor_loads_with_or_without_a_video_part(name, tmp_path):
    FAMILIES[name].save(tmp_path)
    found = automatic(tmp_path, has_images=True)
    assert type(found).__name__.lower() == f"{name}processor"
    assert not getattr(found, "video_processor", None)


def test_an_argument_of_another_kind_is_still_refused():
    with without_videos(), pytest.raises((TypeError, ValueError), match="Received a str for argument image_processor"):
        transformers.LlavaProcessor("no processor", FAMILIES["llava"].processor().tokenizer)


def test_a_text_model_has_a_tokenizer_alone(shapes_checkpoint):
    found = automatic(shapes_checkpoint, has_images=False)
    assert isinstance(found, transformers.PreTrainedTokenizerBase)
