"""Granite 4 Vision with a tower that has a class token, and configurations that the model would not follow."""

from __future__ import annotations

import pytest
import torch

from ditto import LlmBuilder
from ditto.errors import CheckpointError
from ditto.families.registry import find_family
from ditto.reference import RELATIVE_ERROR, relative_error
from ditto.runtime.assembly import assemble
from tests.support.families import clip, granite4_vision
from tests.support.models import TRANSFORMERS_5

pytestmark = pytest.mark.skipif(not TRANSFORMERS_5, reason="the family follows transformers 5")


@torch.no_grad()
def test_a_class_token_is_left_out():
    model = granite4_vision(4, clip(hidden_size=64), vision_feature_select_strategy="default")
    family = find_family("granite4_vision")
    encoder = family.encoder(model.config)
    tiles, size = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(0)), (20, 50)
    wanted = family.features(model, {"pixel_values": tiles[None], "image_sizes": torch.tensor([size])})
    found = assemble(encoder.assembly, encoder.module(model)(tiles), size, model.model.image_newline)
    assert relative_error(found, wanted) < RELATIVE_ERROR[torch.float32]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("deepstack_layer_map", None, "deepstack_layer_map is None"),
        ("deepstack_layer_map", [(0, 2), (1, 2)], "the decoder has 4 layers"),
        ("deepstack_layer_map", [(0, 3)], "the decoder has 4 layers"),
        ("deepstack_layer_map", [(0, 4)], "the decoder has 4 layers"),
        ("deepstack_layer_map", [(0, -1)], "the decoder has 4 layers"),
        ("deepstack_layer_map", [(3, 0)], "the tower has 2 layers"),
        ("spatial_vision_layer", -4, "the tower has 2 layers"),
        ("spatial_target_layers", [0, 1, 2, 3, 4], "there are 4 projectors"),
        ("downsample_rate", None, "downsample_rate is 'None' for 4 patches"),
        ("downsample_rate", "0.5", "downsample_rate is '0.5' for 4 patches"),
        ("downsample_rate", "1/3", "downsample_rate is '1/3' for 4 patches"),
        ("downsample_rate", "1/4", "downsample_rate is '1/4' for 4 patches"),
        ("vision_feature_select_strategy", "default", "becomes 15 embeddings"),
    ],
)
def test_other_configurations_are_refused(name, value, said):
    config = granite4_vision(4).config
    setattr(config, name, value)
    if said == "there are 4 projectors":
        config.text_config.num_hidden_layers, config.deepstack_layer_map = 6, [(0, 5)]
    with pytest.raises(CheckpointError, match=said):
        find_family("granite4_vision").encoder(config)


def test_a_tower_of_images_of_any_size_is_refused():
    config = granite4_vision(4).config
    config.vision_config.model_type = "pixtral"
    family = find_family("granite4_vision")
    with pytest.raises(CheckpointError, match="becomes None embeddings"):
        family.variant(config).encoder(config)


def test_the_language_model_alone_refuses_layers_that_it_lacks():
    model = granite4_vision(4)
    model.config.spatial_target_layers = [2]
    builder = LlmBuilder.from_model(model).with_prompt_table(8).with_target("tensorrt-rtx")
    with pytest.raises(CheckpointError, match="the decoder has 4 layers"):
        builder.part(builder.resolved_target())
