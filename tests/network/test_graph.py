"""A network appends layers and keeps values by name."""

from __future__ import annotations

import pytest
import torch
from attrs import frozen

from ditto.errors import DittoError, Place, ShapeError
from ditto.network import Layer, Network, Node, Spec, Value, check
from ditto.network.layers import Cast, ElementWise, Shuffle, Softmax, Unary
from ditto.reference import Constants, run
from tests.support.layers import NoTensors

X = torch.arange(24.0).reshape(2, 3, 4)


def network_of_x():
    network = Network("net")
    return network, network.input("x", Spec.of(X))


def kinds(network):
    return [type(node.layer).__name__ for node in network.nodes]


def test_whatever_is_added_is_appended():
    network, x = network_of_x()
    first, second = (network.add(Shuffle((1, 0, 2)), x) for _ in range(2))
    back = network.add(Shuffle((1, 0, 2)), second)
    assert kinds(network) == ["Shuffle"] * 3
    assert len({first.name, second.name, back.name}) == 3


def test_a_successor_has_the_same_inputs_and_no_layers_and_leaves_its_names_alone():
    network, x = network_of_x()
    with network.placed(Place("block")):
        inner = network.add(Unary("EXP"), x)
    network.append(Node(Unary("ABS"), (x.name,), ("net.0",)), (x.spec,))
    network.literals.keep(torch.ones(2))
    after = network.successor()
    assert (after.name, after.inputs, after.nodes, after.outputs) == ("net", network.inputs, [], {})
    assert after.literals is network.literals
    with after.placed(Place("block")):
        assert after.add(Unary("SIN"), after.value("x")).name == "block.1"
    assert after.add(Unary("SIN"), after.value("x")).name == "net.1"
    after.append(network.nodes[0], (inner.spec,))
    assert after.value(inner.name) == inner and len(network.nodes) == 2


def test_values_are_named_after_the_module_they_come_from():
    network, x = network_of_x()
    with network.placed(Place("model.layers.0", "model.py:3")):
        inner = [network.add(Unary(op), x) for op in ("EXP", "ABS")]
    outer = network.add(Unary("SIN"), x)
    assert [value.name for value in (*inner, outer)] == ["model.layers.0.0", "model.layers.0.1", "net.0"]
    assert str(outer) == "%net.0"
    assert network.value("net.0") == outer == Value("net.0", Spec.of(X))
    assert network.producer(inner[0]) == Node(
        Unary("EXP"), ("x",), (inner[0].name,), Place("model.layers.0", "model.py:3")
    )
    assert network.producer(x) is None


def test_made_names_stay_clear_of_inputs():
    network = Network("net")
    x = network.input("net.0", Spec.of(X))
    assert network.add(Unary("EXP"), x).name == "net.1"


def test_a_name_is_taken_once():
    network, x = network_of_x()
    made = network.add(Unary("EXP"), x)
    with pytest.raises(ShapeError) as error:
        network.input("x", Spec.of(X))
    assert error.value.cause == "there is a value named 'x' already"
    with pytest.raises(ShapeError) as error:
        network.append(Node(Unary("ABS"), ("x",), (made.name,)), (made.spec,))
    assert error.value.cause == "there is a value named 'net.0' already"
    with pytest.raises(ShapeError) as error:
        network.value("z")
    assert error.value.cause == "there is no value named 'z'"


def test_errors_carry_the_place_they_are_raised_in():
    network, x = network_of_x()
    with (
        pytest.raises(ShapeError) as error,
        network.placed(Place("outer")),
        network.placed(Place("inner", "model.py:3")),
    ):
        network.add(Softmax(5), x)
    assert str(error.value) == "axis 5 does not fit float32[2, 3, 4]\nat: inner (model.py:3)"
    with pytest.raises(DittoError) as error, network.placed(Place("outer")):
        raise DittoError("no")
    assert error.value.where == Place("outer")
    assert network.add(Unary("EXP"), x).name == "net.0"  # the place is left, also by an error


def test_a_refused_layer_leaves_nothing_behind():
    network, x = network_of_x()
    with pytest.raises(ShapeError):
        network.add(Softmax(5), x)
    assert network.nodes == []


def test_outputs_have_names_of_their_own_and_may_share_memory():
    network, x = network_of_x()
    y = network.add(Unary("EXP"), x)
    network.output("y", y)
    network.output("present", y, shares="x")
    assert network.outputs == {"y": "net.0", "present": "net.0"}
    assert network.shared == {"present": "x"}


@frozen
class Halves(Layer):
    """A layer with two outputs."""

    def infer(self, x):
        return (x.with_shape(x.shape[1:]),) * 2

    def reference(self, x):
        return x[0], x[1]

    def emit(self, to, x):
        raise NotImplementedError


def test_a_layer_may_have_several_outputs():
    network, x = network_of_x()
    first, second = network.add_many(Halves(), x)
    network.output("y", network.add(ElementWise("SUB"), second, first))
    check(network)
    found = run(network, {"x": X}, Constants(network, NoTensors()))["y"]
    assert torch.equal(found, torch.full((3, 4), 12.0))


def test_a_cast_is_not_taken_for_another():
    network, x = network_of_x()
    assert network.add(Cast(torch.float16), x) != network.add(Cast(torch.bfloat16), x)
