"""Tiles of the model's inputs become items, and items inputs again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ditto.errors import PromptError
from ditto.families.blip_2 import Blip2Preprocessor
from ditto.families.idefics3 import Idefics3Preprocessor
from ditto.families.preprocessor import TilePreprocessor


@pytest.mark.parametrize("axes", [(5,), (1, 5), (1, 5, 1)])
def test_all_axes_before_the_channels_count_tiles(axes):
    pixels = torch.randn(*axes, 3, 4, 6)
    items = TilePreprocessor().items({"pixel_values": pixels})
    assert len(items) == 5
    assert torch.equal(torch.stack([item.inputs["input"] for item in items]), pixels.reshape(5, 3, 4, 6))


def test_items_become_the_models_inputs():
    pixels = torch.randn(2, 3, 4, 6)
    for family, wanted in ((TilePreprocessor(), pixels), (Idefics3Preprocessor(), pixels[None])):
        found = family.model_inputs(family.items({"pixel_values": wanted}))
        assert torch.equal(found["pixel_values"], wanted)


def test_several_inputs_are_taken_apart_together():
    names = {"input": "pixel_values", "large": "high_res_pixel_values"}
    given = {"pixel_values": torch.randn(2, 3, 4, 4), "high_res_pixel_values": torch.randn(2, 3, 8, 8)}
    items = TilePreprocessor(names).items(given)
    assert [item.inputs["large"].shape for item in items] == [(3, 8, 8)] * 2
    with pytest.raises(ValueError, match="zip"):
        TilePreprocessor(names).items({**given, "pixel_values": torch.randn(3, 3, 4, 4)})


def test_padded_tiles_are_refused():
    pixels, mask = torch.randn(1, 2, 3, 4, 4), torch.ones(1, 2, 4, 4, dtype=torch.bool)
    Idefics3Preprocessor().items({"pixel_values": pixels, "pixel_attention_mask": mask})
    mask[0, 1, 3] = False
    with pytest.raises(PromptError, match="the processor pads images"):
        Idefics3Preprocessor().items({"pixel_values": pixels, "pixel_attention_mask": mask})


@pytest.mark.parametrize(("text", "count"), [("Is it new?", 0), ("Is <image> new?", 1), ("<image><image>", 2)])
def test_one_image_before_the_prompt_is_asked_for(text, count):
    with pytest.raises(PromptError, match="the model takes one image before each prompt"):
        Blip2Preprocessor().encode(SimpleNamespace(image_token="<image>"), text, [None] * count)
