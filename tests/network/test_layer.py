"""Every layer is one frozen class that says what it infers, means and emits."""

from __future__ import annotations

import inspect

import attrs
import pytest

from ditto.network import Layer, layers
from tests.support.layers import emitted
from tests.support.networks import every_layer_network

KINDS = [getattr(layers, name) for name in layers.__all__]


def test_the_list_of_layers_is_complete():
    here = [cls for cls in Layer.__subclasses__() if cls.__module__.startswith("ditto.network.layers")]
    assert set(KINDS) == set(here)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_frozen_and_says_what_it_infers_means_and_emits(kind):
    assert {"infer", "reference", "emit"} <= set(vars(kind))
    assert not inspect.isabstract(kind)
    assert attrs.has(kind) and kind.__setattr__ is not object.__setattr__
    assert "TensorRT: " in kind.__doc__


def test_a_layer_cannot_be_changed_and_equals_its_like():
    softmax = layers.Softmax(axis=1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        softmax.axis = 2
    assert (softmax, hash(softmax)) == (layers.Softmax(1), hash(layers.Softmax(1)))
    assert softmax != layers.Softmax(2)


def test_tensorrt_takes_a_network_of_every_kind():
    network, _, source = every_layer_network()
    assert {type(node.layer) for node in network.nodes} == set(KINDS)
    definition = emitted(network, source).definition
    assert [definition.get_output(i).name for i in range(definition.num_outputs)] == list(network.outputs)
    assert [definition.get_input(i).name for i in range(definition.num_inputs)] == list(network.inputs)
