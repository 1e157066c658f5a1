"""Vision engines compute Hugging Face's image features."""

from __future__ import annotations

import pytest
import torch

from ditto import LlavaModel, VisionBuilder
from ditto.arguments import DynamicDimension, TensorTypeHint
from ditto.builders import InMemory
from ditto.errors import ConfigError
from ditto.network.layers import MatrixMultiply
from ditto.reference import RELATIVE_ERROR, Constants, relative_error, run
from tests.support.describing import engine_of
from tests.support.models import LLAVA_MODELS, image_features, llava
from tests.support.optimizing import by_weights


@pytest.mark.drawn(18)
@pytest.mark.parametrize("name", LLAVA_MODELS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("weights", ["embedded", "external"])
def test_features_are_those_of_hugging_face(name, dtype, weights):
    model = LLAVA_MODELS[name]()
    configured = LlavaModel.from_model(model).with_batch(2).with_target("tensorrt-rtx").with_dtype(dtype)
    made = by_weights(configured, weights).vision
    engine = engine_of(made)
    network = engine.network
    torch.manual_seed(3)
    pixels = torch.randn(2, 3, 28, 28)
    found = run(network, {"input": pixels.to(engine.part.dtype)}, Constants(network, engine.part.tensors))[
        "encoder_output"
    ]
    assert relative_error(found, image_features(model, pixels)) <= RELATIVE_ERROR[engine.part.dtype]


@pytest.mark.parametrize(("weights", "products"), [("embedded", 6), ("external", 4)])
def test_query_key_and_value_are_one_where_profiles_are_static(weights, products):
    made = by_weights(LlavaModel.from_model(llava()).with_target("tensorrt-rtx"), weights).vision
    network = engine_of(made).network
    block = [node for node in network.nodes if ".layers.0." in f"{node.place.module}."]
    assert sum(isinstance(node.layer, MatrixMultiply) for node in block) == products


def test_the_batch_is_tuned_for_half_rounded_down():
    made = LlavaModel.from_model(llava()).with_batch(5).vision
    assert made.inputs["input"].shape[0] == DynamicDimension("batch", 1, 2, 5)


def test_an_input_without_a_batch_axis_is_refused():
    hint = TensorTypeHint((1, 3, 28, 28), torch.float32)
    made = VisionBuilder(source=InMemory(llava()), family="llava", inputs={"input": hint})
    with pytest.raises(ConfigError, match="the vision input has no batch axis"):
        made.with_batch(2)


def test_layers_behind_the_chosen_one_are_not_built():
    made = LlavaModel.from_model(llava(vision_feature_layer=-2)).with_target("tensorrt-rtx").vision
    network = engine_of(made).network
    modules = {node.place.module for node in network.nodes}
    assert any("layers.1" in module for module in modules)
    assert not any("layers.2" in module or "post_layernorm" in module for module in modules)
