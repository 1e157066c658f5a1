"""Sizes that no model has are refused by name, wherever they stand; real ones pass."""

from __future__ import annotations

import copy

import pytest
from transformers import LlamaConfig, LlavaConfig

from ditto.builders.sizes import check_sizes
from ditto.errors import CheckpointError
from tests.support.models import TEXT_MODELS, llava

ABSURD = [None, "x", -1, 0, 1.5, 10**12, {}, True]


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_configurations_of_models_pass(name):
    check_sizes(TEXT_MODELS[name]().config, "config.json")


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_an_absurd_size_is_named(part, value):
    config = copy.deepcopy(llava().config)
    vars(getattr(config, part))["num_hidden_layers"] = value
    with pytest.raises(CheckpointError, match=f"`{part}.num_hidden_layers` is") as caught:
        check_sizes(config, "config.json")
    assert caught.value.where == "config.json"


@pytest.mark.parametrize("value", [[], 0, [28, "x"], [28], [28, 28, 3], {"height": 28, "width": 28}])
def test_a_image_has_a_size(value):
    config = copy.deepcopy(llava().config)
    vars(config.vision_config)["image_size"] = value
    with pytest.raises(CheckpointError, match=r"`vision_config.image_size` is"):
        check_sizes(config, "config.json")


@pytest.mark.parametrize("value", [5, "LlamaForCausalLM", [None]])
def test_architectures_are_names(value):
    config = copy.deepcopy(llava().config)
    vars(config)["architectures"] = value
    with pytest.raises(CheckpointError, match="`architectures` is"):
        check_sizes(config, "config.json")


@pytest.mark.parametrize("value", [None, [96, 64]])
def test_a_size_of_its_own_for_each_layer_or_none_is_taken(value):
    config = copy.deepcopy(llava().config)
    vars(config.text_config)["intermediate_size"] = value
    check_sizes(config, "config.json")


@pytest.mark.parametrize("value", [[], [96, "x"], [96, 0], 0])
def test_not_every_list_is(value):
    config = copy.deepcopy(llava().config)
    vars(config.text_config)["intermediate_size"] = value
    with pytest.raises(CheckpointError, match="`text_config.intermediate_size` is"):
        check_sizes(config, "config.json")


WRONG_NUMBERS = ["x", "", True, [], {}, {"x": 1}, -1, 0, 10**400, float("nan"), float("inf")]


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_theta", "partial_rotary_factor", "final_logit_softcapping"])
def test_numbers_are_numbers(key):
    for value in WRONG_NUMBERS:
        config = LlavaConfig(text_config=LlamaConfig())
        vars(config.text_config)[key] = value
        with pytest.raises(CheckpointError, match=f"`text_config.{key}` is"):
            check_sizes(config, "config.json")


@pytest.mark.parametrize("key", ["rope_theta", "factor", "original_max_position_embeddings", "low_freq_factor"])
def test_so_are_those_of_rope_scaling_and_of_each_kind_of_layer(key):
    for value in WRONG_NUMBERS:
        for name in ("rope_parameters", "rope_scaling"):
            config = LlavaConfig(text_config=LlamaConfig())
            for rope, place in (({key: value}, f"{name}.{key}"), ({"full": {key: value}}, f"{name}.full.{key}")):
                vars(config.text_config)[name] = rope
                with pytest.raises(CheckpointError, match=f"`text_config.{place}` is"):
                    check_sizes(config, "config.json")


@pytest.mark.parametrize("key", ["rope_scaling", "layer_types", "image_token_id", "image_token_index"])
@pytest.mark.parametrize("value", ["x", 2.5, [[]], [{}], True])
def test_objects_lists_and_tokens_are_what_they_are_called(key, value):
    config = LlavaConfig(text_config=LlamaConfig())
    vars(config.text_config)[key] = value
    with pytest.raises(CheckpointError, match=f"`text_config.{key}` is"):
        check_sizes(config, "config.json")
