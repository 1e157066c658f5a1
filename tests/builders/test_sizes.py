"""Sizes that no model has are refused by name, wherever they stand; real ones pass."""

from __future__ import annotations

import copy

import pytest

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
def test_a_picture_has_a_size(value):
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
