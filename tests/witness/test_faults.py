"""The comparison with Hugging Face notices faults: each is planted into an emitted definition through TensorRT's own
API, and has to change the numbers or be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorrt_rtx as trt
import torch
from attrs import frozen

from ditto.builders import LlmBuilder
from ditto.families.llava import LlavaModel
from ditto.reference import RELATIVE_ERROR, relative_error
from tests.support.layers import emitted
from tests.support.models import LLAVA_MODELS, TEXT_MODELS, image_features
from tests.support.witness import WitnessError, replay
from tests.support.witness.replay import RULES
from tests.support.witnessed import decoder_errors, described, eager, logits

SAME = RELATIVE_ERROR[torch.float32]
ELEMENTWISE, ACTIVATION = trt.ElementWiseOperation, trt.ActivationType


@frozen
class Subject:
    """A network that can be emitted again and again, and how far a definition of it is from Hugging Face."""

    described: tuple[Any, Any]
    error: Callable[[Any], float]


def _decoder(name: str) -> Subject:
    model = TEXT_MODELS[name]()
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 128, (length,), generator=generator) for length in (12, 8)]
    parts = described(LlmBuilder.from_model(model))
    wanted = logits(eager(model), rows)
    return Subject(parts, lambda kept: float(torch.tensor(decoder_errors(kept, rows, wanted)).max()))


def _tower(name: str) -> Subject:
    model = LLAVA_MODELS[name]()
    pixels = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    parts = described(LlavaModel.from_model(model).vision)
    wanted = image_features(eager(model), pixels)
    return Subject(
        parts, lambda kept: relative_error(replay(kept.definition, {"input": pixels})["encoder_output"], wanted)
    )


@pytest.fixture(scope="module")
def subjects() -> dict[str, Subject]:
    return {
        "llama": _decoder("llama"),
        "gemma2": _decoder("gemma2 with soft-caps and windows"),
        "tower": _tower("several layers"),
    }


def every(net: Any, kind: type, **properties: Any) -> list[Any]:
    """The layers of a class whose properties have these values, as that class."""
    found = []
    for index in range(net.num_layers):
        layer = net.get_layer(index)
        cls, _ = RULES[trt.ILayer.type.fget(layer)]
        if cls is kind:
            layer.__class__ = cls
            if all(getattr(layer, name) == value for name, value in properties.items()):
                found.append(layer)
    return found


def swap(layer: Any, one: int, other: int) -> None:
    """Exchange two inputs."""
    first, second = layer.get_input(one), layer.get_input(other)
    layer.set_input(one, second)
    layer.set_input(other, first)


def replace(net: Any, old: Any, new: Any) -> None:
    """Feed `new` to everything that takes `old`."""
    for index in range(net.num_layers):
        layer = net.get_layer(index)
        for place in range(layer.num_inputs):
            if layer.get_input(place) is not None and layer.get_input(place).name == old.name:
                layer.set_input(place, new)


Plant = Callable[[Any], object]
FAULTS: dict[str, tuple[str, Plant, str | None]] = {}


def fault(subject: str, refused: str | None = None) -> Callable[[Plant], Plant]:
    """A fault that changes the numbers, or is refused with these words. What it returns is kept alive: TensorRT refers
    to the memory of weights."""

    def keep(plant: Plant) -> Plant:
        FAULTS[plant.__name__.replace("_", " ")] = subject, plant, refused
        return plant

    return keep


@fault("llama")
def norms_average_another_axis(net):
    every(net, trt.IReduceLayer)[0].axes = 0b010


@fault("llama")
def a_residual_is_subtracted(net):
    sums = every(net, trt.IElementWiseLayer, op=ELEMENTWISE.SUM)
    next(layer for layer in sums if layer.get_output(0).shape == (-1, -1, 64)).op = ELEMENTWISE.SUB


@fault("llama")
def a_square_weight_is_not_transposed(net):
    products = every(net, trt.IMatrixMultiplyLayer)
    next(layer for layer in products if layer.get_input(1).shape == (1, 64, 64)).op1 = trt.MatrixOperation.NONE


@fault("llama", refused="takes 0 to 127 out of 64")
def the_embedding_is_gathered_by_column(net):
    every(net, trt.IGatherLayer)[0].axis = 1


@fault("llama", refused="shape .* is invalid")
def heads_stay_behind_positions(net):
    shuffles = every(net, trt.IShuffleLayer)
    next(layer for layer in shuffles if tuple(layer.first_transpose)[:3] == (0, 2, 1)).first_transpose = (0, 1, 2, 3)


@fault("llama")
def one_attention_has_no_mask(net):
    old = every(net, trt.IAttentionOutputLayer)[0].attention
    new = net.add_attention(*(old.get_input(index) for index in range(3)), old.norm_op, False)
    replace(net, old.get_output(0), new.get_output(0))


@fault("llama")
def keys_and_values_change_places(net):
    swap(every(net, trt.IAttentionOutputLayer)[0].attention, 1, 2)


@fault("llama")
def a_query_is_not_scaled(net):
    attention = every(net, trt.IAttentionOutputLayer)[0].attention
    product = next(
        layer for layer in every(net, trt.IElementWiseLayer) if layer.get_output(0).name == attention.get_input(0).name
    )
    attention.set_input(0, product.get_input(0))


@fault("llama")
def keys_rotate_as_neighbours(net):
    every(net, trt.IRotaryEmbeddingLayer)[1].interleaved = True


@fault("llama", refused="tables .* 8 columns")
def keys_rotate_by_half_of_the_columns(net):
    every(net, trt.IRotaryEmbeddingLayer)[1].rotary_embedding_dim = 8


@fault("llama")
def cosine_and_sine_change_places(net):
    swap(every(net, trt.IRotaryEmbeddingLayer)[0], 1, 2)


@fault("llama", refused="takes 0 to 127 out of 48")
def positions_are_token_ids(net):
    inputs = {net.get_input(index).name: net.get_input(index) for index in range(net.num_inputs)}
    replace(net, inputs["position_ids"], inputs["input_ids"])


@fault("llama")
def one_cache_is_written_elsewhere(net):
    inputs = {net.get_input(index).name: net.get_input(index) for index in range(net.num_inputs)}
    every(net, trt.IKVCacheUpdateLayer)[-1].set_input(2, inputs["last_token_ids"])


@fault("llama")
def two_caches_change_places(net):
    updates = every(net, trt.IKVCacheUpdateLayer)
    first, second = updates[0].get_input(0), updates[1].get_input(0)
    updates[0].set_input(0, second)
    updates[1].set_input(0, first)


@fault("llama")
def queries_see_what_comes_later(net):
    every(net, trt.IElementWiseLayer, op=ELEMENTWISE.GREATER)[0].op = ELEMENTWISE.LESS


@fault("llama")
def positions_are_counted_from_one(net):
    fill = every(net, trt.IFillLayer)[0]
    one = np.ones(1, np.int32)
    fill.set_input(1, net.add_constant((), one).get_output(0))
    return one


@fault("llama")
def a_row_of_a_weight_is_missing(net):
    constant = next(layer for layer in every(net, trt.IConstantLayer) if layer.shape == (1, 64, 96))
    damaged = constant.weights.copy()
    damaged[:96] = 0
    constant.weights = damaged
    return damaged


@fault("llama")
def gate_and_up_projection_change_places(net):
    constant = next(layer for layer in every(net, trt.IConstantLayer) if layer.shape == (1, 192, 64))
    swapped = np.concatenate(np.split(constant.weights, 2)[::-1])
    constant.weights = swapped
    return swapped


@fault("gemma2")
def softmax_runs_over_queries(net):
    every(net, trt.ISoftMaxLayer)[0].axes = 0b01000


@fault("gemma2")
def a_soft_cap_is_another_curve(net):
    every(net, trt.IActivationLayer, type=ACTIVATION.TANH)[0].type = ACTIVATION.SIGMOID


@fault("gemma2")
def the_window_is_ignored(net):
    every(net, trt.IElementWiseLayer, op=ELEMENTWISE.AND)[0].op = ELEMENTWISE.OR


@fault("gemma2")
def the_window_is_one_wider(net):
    subtraction = every(net, trt.IElementWiseLayer, op=ELEMENTWISE.SUB)[0]
    wider = np.full((1, 1, 1, 1), 6, np.int32)
    subtraction.set_input(1, net.add_constant((1, 1, 1, 1), wider).get_output(0))
    return wider


@fault("gemma2")
def seen_and_unseen_change_places(net):
    swap(every(net, trt.ISelectLayer)[0], 1, 2)


@fault("gemma2")
def the_other_gelu_in_the_mlp(net):
    every(net, trt.IActivationLayer, type=ACTIVATION.GELU_TANH)[0].type = ACTIVATION.GELU_ERF


@fault("gemma2")
def a_root_is_left_out(net):
    every(net, trt.IUnaryLayer, op=trt.UnaryOperation.SQRT)[0].op = trt.UnaryOperation.ABS


@fault("tower")
def the_other_gelu_in_the_projector(net):
    every(net, trt.IActivationLayer, type=ACTIVATION.GELU_ERF)[0].type = ACTIVATION.GELU_TANH


@fault("tower")
def a_norm_has_a_hundred_times_the_epsilon(net):
    layer = every(net, trt.INormalizationLayer)[0]
    layer.epsilon *= 100


@fault("tower")
def a_norm_runs_over_tokens(net):
    every(net, trt.INormalizationLayer)[1].axes = 0b010


@fault("tower")
def the_first_token_stays_and_the_last_is_dropped(net):
    every(net, trt.ISliceLayer, start=(0, 1, 0))[0].start = (0, 0, 0)


@fault("tower")
def the_class_token_comes_last(net):
    swap(every(net, trt.IConcatenationLayer, axis=1)[0], 0, 1)


@fault("tower")
def feature_layers_change_places(net):
    swap(every(net, trt.IConcatenationLayer, axis=2)[-1], 0, 1)


def patches(net):
    """What gathers the pixels of each patch: [images, channels, h, patch, w, patch] → [images, h, w, ...]."""
    shuffles = every(net, trt.IShuffleLayer)
    return next(layer for layer in shuffles if tuple(layer.second_transpose)[:6] == (0, 2, 4, 1, 3, 5))


@fault("tower")
def patches_change_places(net):
    patches(net).second_transpose = (0, 4, 2, 1, 3, 5)


@fault("tower")
def patches_are_transposed(net):
    patches(net).second_transpose = (0, 2, 4, 1, 5, 3)


@pytest.mark.parametrize("name", ["llama", "gemma2", "tower"])
def test_without_a_fault_nothing_is_noticed(subjects, name):
    assert subjects[name].error(emitted(*subjects[name].described)) <= SAME


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed(subjects, name):
    subject, plant, refused = FAULTS[name]
    kept = emitted(*subjects[subject].described)
    memory = plant(kept.definition)
    if refused is None:
        assert subjects[subject].error(kept) > 10 * SAME
    else:
        with pytest.raises(WitnessError, match=refused):
            subjects[subject].error(kept)
    del memory
