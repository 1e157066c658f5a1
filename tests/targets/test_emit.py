"""Networks become TensorRT's own objects; what TensorRT refuses is said in its words and at the user's place."""

from __future__ import annotations

import gc

import pytest
import torch
from attrs import frozen

from ditto.bindings import load_native
from ditto.errors import BuildError, Place
from ditto.network import Layer, Network, Spec, symbol
from ditto.network.layers import Constant, ElementWise, Shuffle
from ditto.network.weight import Stored, fold
from ditto.targets.emit import Emission, Messages
from tests.support.layers import emitted, network_of

BATCH = symbol("batch")


class Tensors:
    """Two tensors, and what was asked for."""

    def __init__(self):
        self.held = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(9.0).reshape(3, 3)}

    def tensor(self, name):
        return self.held[name]

    def release(self):
        """Nothing."""


def stored(name, shape):
    return Stored(name, shape, torch.float32)


def test_dynamic_dimensions_keep_their_names():
    network = network_of(Shuffle(reshape=(0, 6)), [Spec((BATCH, 2, 3), torch.float16)])
    tensor = emitted(network).definition.get_input(0)
    assert (tensor.name, tuple(tensor.shape), tensor.get_dimension_name(0)) == ("input0", (-1, 2, 3), "batch")


def test_layers_and_outputs_have_our_names():
    network = Network("test")
    x = network.input("x", Spec((2, 3), torch.float32))
    with network.placed(Place("model.norm", "f.py:1")):
        made = network.add(ElementWise("SUM"), x, x)
    network.output("result", network.add(ElementWise("PROD"), made, made))
    definition = emitted(network).definition
    assert definition.get_layer(0).name == "model.norm.0"
    assert definition.get_output(0).name == "result"


def test_joined_weights_are_given_whole_and_lie_where_there_is_room():
    network = Network("test")
    whole = fold("concatenate", (stored("a", (2, 3)), stored("b", (3, 3))), 0)
    network.output("whole", network.add(Constant(whole)))
    trt = load_native("tensorrt_rtx")
    messages = Messages(trt.module)
    definition = trt.module.Builder(messages.log).create_network(1)
    made = []

    def room(shape, dtype):
        made.append(torch.empty(shape, dtype=dtype))
        return made[-1]

    Emission(trt, definition, Tensors(), messages, room).emit(network)
    assert [definition.get_layer(index).type for index in range(definition.num_layers)] == [
        trt.module.LayerType.CONSTANT
    ]
    (whole,) = made
    assert torch.equal(whole, torch.cat([Tensors().held["a"], Tensors().held["b"]]))
    layer = definition.get_layer(0)
    layer.__class__ = trt.module.IConstantLayer
    assert torch.equal(torch.from_numpy(layer.weights).reshape(5, 3), whole)


@frozen
class Impossible(Layer):
    """A layer that TensorRT refuses: a reshape to another number of elements."""

    def infer(self, x):
        return x.with_shape((5, 5))

    def reference(self, x):
        raise NotImplementedError

    def emit(self, to, x):
        made = to.made(to.net.add_shuffle(x))
        made.reshape_dims = (5, 5)
        return made.get_output(0)


@frozen
class Nothing(Layer):
    """A layer that TensorRT does not make."""

    def infer(self, x):
        return x

    def reference(self, x):
        raise NotImplementedError

    def emit(self, to, x):
        return to.made(None)


@frozen
class Mistaken(Layer):
    """A layer whose shape rule is wrong."""

    def infer(self, x):
        return x

    def reference(self, x):
        raise NotImplementedError

    def emit(self, to, x):
        return to.made(to.net.add_unsqueeze(x, to.number(0, torch.int64, (1,)))).get_output(0)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Impossible(), "cannot infer the shape of model.norm.0"),
        (Nothing(), "TensorRT refuses Nothing"),
        (Mistaken(), r"TensorRT makes model.norm.0 .* Ditto expects float32\[2, 3\]"),
    ],
)
def test_what_tensorrt_refuses_is_said_where_it_is(layer, message):
    network = Network("test")
    x = network.input("x", Spec((2, 3), torch.float32))
    with network.placed(Place("model.norm", "f.py:1")):
        network.output("result", network.add(layer, x))
    with pytest.raises(BuildError, match=message) as caught:
        emitted(network)
    assert "at: model.norm (f.py:1)" in str(caught.value)


def test_no_garbage_is_collected_while_tensorrt_works():
    seen = []

    class Watching(ElementWise):
        def emit(self, to, *inputs):
            seen.append(gc.isenabled())
            return super().emit(to, *inputs)

    network = Network("test")
    x = network.input("x", Spec((2,), torch.float32))
    network.output("y", network.add(Watching("SUM"), x, x))
    assert gc.isenabled()
    emitted(network)
    assert seen == [False]
    assert gc.isenabled()
