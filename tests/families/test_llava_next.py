"""Limits, refusals and inputs of families that assemble images from tiles."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPVisionConfig, LlavaNextConfig, LlavaOnevisionConfig

from ditto.engine import Assembly
from ditto.errors import CheckpointError, PromptError
from ditto.families.llava_next import AssembledPreprocessor, LlavaNextModel
from ditto.families.llava_onevision import LlavaOnevisionModel, OnevisionPreprocessor
from ditto.runtime.encoding import EncoderItem, EncoderShapes
from tests.support.families import PINPOINTS, VISION, llava_next, llava_onevision, siglip
from tests.support.models import TRANSFORMERS_5, llama

SHAPES = EncoderShapes(
    SimpleNamespace(
        inputs={"input": "float32[batch, 3, 28, 28]"},
        outputs={"encoder_output": "float32[batch, 16, 8]"},
        assembly=Assembly(tile=28, side=4, sizes=PINPOINTS),
        spec=SimpleNamespace(profiles=()),
    )
)


def config_of(cls=LlavaNextConfig, **settings):
    vision = CLIPVisionConfig(**VISION)
    return cls(vision_config=vision, image_grid_pinpoints=PINPOINTS, **settings)


def test_pinpoints_of_the_processor_must_be_the_models():
    assert LlavaNextModel.most_tiles(config_of(), {}) == 5
    assert LlavaNextModel.most_tiles(config_of(), {"image_grid_pinpoints": PINPOINTS}) == 5
    with pytest.raises(CheckpointError, match="give both the same sizes"):
        LlavaNextModel.most_tiles(config_of(), {"image_grid_pinpoints": PINPOINTS[::-1]})


def test_embeddings_that_are_no_square_are_refused():
    assert LlavaNextModel.encoder(config_of()).assembly == Assembly(tile=28, side=4, sizes=PINPOINTS)
    with pytest.raises(CheckpointError, match="becomes 17 embeddings"):
        LlavaNextModel.encoder(config_of(vision_feature_select_strategy="full"))


@pytest.mark.parametrize("stated", ["pad", "anyres", "anyres_max_0", "anyres_max_9x"])
def test_other_aspect_ratios_are_refused(stated):
    config = config_of(LlavaOnevisionConfig, vision_feature_select_strategy="default", vision_aspect_ratio=stated)
    with pytest.raises(CheckpointError, match=f"vision_aspect_ratio is '{stated}'"):
        LlavaOnevisionModel.encoder(config)


@pytest.mark.skipif(not TRANSFORMERS_5, reason="the families follow transformers 5")
def test_limits_follow_from_the_largest_image():
    most = 16 + 8 * 9
    made = LlavaNextModel.from_model(llava_next(60, CLIPVisionConfig(**VISION), llama().config)).with_max_images(2)
    assert (made.llm.prompt_rows, made.vision.max_batch_size) == (2 * most, 10)
    assert made.with_max_tiles(3).llm.prompt_rows == 2 * (16 + 8 * 5)
    settings = {"image_grid_pinpoints": PINPOINTS, "text_config": llama().config}
    model = LlavaOnevisionModel.from_model(llava_onevision(60, siglip(vision_use_head=False), **settings))
    several = model.with_max_images(4)
    assert (several.llm.prompt_rows, several.vision.max_batch_size) == (most, 5)  # they are not cut into tiles
    assert model.with_max_images(6).llm.prompt_rows == 6 * 17
    assert model.with_max_images(6).vision.max_batch_size == 6


def test_padded_tiles_are_left_out_and_come_back():
    pixels, sizes = torch.randn(2, 5, 3, 28, 28), torch.tensor([[20, 50], [50, 50]])
    items = AssembledPreprocessor().items({"pixel_values": pixels, "image_sizes": sizes})
    (call,) = SHAPES.batches(items, 99)
    assert torch.equal(call["input"], torch.cat([pixels[0, :3], pixels[1]]))
    short = [EncoderItem({"input": items[0].inputs["input"][:3]}, (20, 50)), items[1]]
    found = AssembledPreprocessor().model_inputs(short)
    assert torch.equal(found["image_sizes"], sizes)
    assert torch.equal(found["pixel_values"][0, :3], pixels[0, :3]) and not found["pixel_values"][0, 3:].any()


def test_several_images_of_one_prompt_are_not_cut():
    inputs = {"pixel_values": torch.randn(2, 5, 3, 28, 28), "image_sizes": torch.tensor([[20, 50], [50, 50]])}
    together = OnevisionPreprocessor().items({**inputs, "batch_num_images": torch.tensor([2])})
    assert [SHAPES.rows(item) for item in together] == [17, 17]
    apart = OnevisionPreprocessor().items({**inputs, "batch_num_images": torch.tensor([1, 1])})
    assert [SHAPES.rows(item) for item in apart] == [16 + 4 * 9, 16 + 8 * 9]


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((2, 3, 28, 28), (20, 50), "for each of 3 tiles"),
        ((3, 3, 28, 29), (20, 50), r"expects \[3, 28, 28\]"),
        ((3, 28, 28), None, "images come as"),
        ((3, 28, 28), (20, 50), "images come as"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(shape, size, message):
    with pytest.raises(PromptError, match=message):
        SHAPES.check(EncoderItem({"input": torch.zeros(shape)}, size))
