"""A part of a model knows its KV cache and what the other parts expect of it."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve

from ditto.arguments import DynamicDimension
from ditto.configs import Limits
from ditto.errors import ModelError
from ditto.network import Network, Spec, symbol
from ditto.network.layers import Identity
from tests.support.describing import language_part, vision_part

LIMITS = Limits(max_batch_size=3, max_input_len=8, max_seq_len=10, max_num_tokens=8)


def test_a_cache_is_keys_and_values_of_every_layer_at_the_limits():
    # 2 layers, keys and values, 2 KV heads of 16 values of 2 bytes; 3 rows of 10 tokens
    assert language_part(LIMITS).cache_bytes() == 2 * 2 * 2 * 16 * 2 * 3 * 10
    assert vision_part().cache_bytes() == 0


@pytest.mark.parametrize(("expected", "fits"), [(None, True), (16, True), (15, False)])
def test_a_tower_makes_the_image_tokens_that_the_language_model_expects(expected, fits):
    network = Network("vision")
    made = network.input("input", Spec((symbol("batch"), 16, 64), torch.float16))
    network.output("encoder_output", network.add(Identity(), made))
    part = evolve(vision_part(), tokens_per_image=expected)
    if fits:
        part.check(network)
        return
    with pytest.raises(ModelError, match="makes 16 image tokens of an image, 15 were expected"):
        part.check(network)


def test_dimensions_of_several_inputs_count_once():
    images = DynamicDimension.up_to("images", 4)
    part = vision_part(images)
    both = evolve(part, inputs={**part.inputs, "mask": next(iter(part.inputs.values()))})
    assert both.dimensions == (images,)
