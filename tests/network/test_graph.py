"""A network adds each layer once, merges shuffles, and keeps values by name."""

from __future__ import annotations

import itertools

import pytest
import torch
from attrs import frozen

from ditto.errors import DittoError, Place, ShapeError
from ditto.network import Layer, Network, Node, Spec, Value, check
from ditto.network.layers import Cast, Constant, ElementWise, Shape, Shuffle, Softmax, Unary
from ditto.reference import Constants, run
from tests.network.samples import spec
from tests.support.layers import NoTensors

X = torch.arange(24.0).reshape(2, 3, 4)


def network_of_x():
    network = Network("net")
    return network, network.input("x", Spec.of(X))


def kinds(network):
    return [type(node.layer).__name__ for node in network.nodes]


def test_equal_layers_of_equal_inputs_are_one():
    network, x = network_of_x()
    first = network.add(Softmax(1), x)
    assert network.add(Softmax(1), x) == first
    assert network.add(Softmax(2), x) != first
    assert network.add(Softmax(1), network.add(Unary("EXP"), x)) != first
    assert kinds(network) == ["Softmax", "Softmax", "Unary", "Softmax"]


def test_inputs_in_another_order_are_other_inputs():
    network, x = network_of_x()
    y = network.add(Unary("EXP"), x)
    assert network.add(ElementWise("SUB"), x, y) != network.add(ElementWise("SUB"), y, x)


def test_equal_constants_are_one():
    network, _ = network_of_x()
    first, second = (network.add(Constant(network.literals.keep(torch.ones(2)))) for _ in range(2))
    other = network.add(Constant(network.literals.keep(torch.zeros(2))))
    assert first == second != other
    assert len(network.constants()) == 2


TRANSPOSES = [
    Shuffle(first=(1, 2, 0)),
    Shuffle(second=(0, 2, 1)),
    Shuffle(first=(2, 1, 0), second=(1, 0, 2)),
    Shuffle(),
]
RESHAPES = [Shuffle(reshape=(4, -1, 0)), Shuffle((2, 0, 1), (0, 3, 2)), Shuffle((1, 0, 2), (3, 4, 2), (2, 1, 0))]


@pytest.mark.parametrize("length", [2, 3, 4])
def test_merged_shuffles_move_elements_as_one_after_another(length):
    x = torch.arange(24.0).reshape(4, 3, 2)
    for chain in itertools.product([*TRANSPOSES, *RESHAPES], repeat=length):
        network = Network("net")
        value, wanted = network.input("x", Spec.of(x)), x
        try:
            for layer in chain:
                wanted = layer.reference(wanted)
                value = network.add(layer, value)
        except (ShapeError, RuntimeError):
            continue  # a copied or inferred size that this chain does not have
        network.output("y", value)
        network.prune()
        assert torch.equal(run(network, {"x": x}, Constants(network, NoTensors()))["y"], wanted), chain
        reshapes = sum(layer.reshape is not None for layer in chain)
        assert len(network.nodes) <= max(1, reshapes), chain


def test_transposes_around_one_reshape_are_one_shuffle():
    network, x = network_of_x()
    value = x
    for layer in (Shuffle((1, 0, 2)), Shuffle((0, 2, 1)), Shuffle(None, (2, 6, 2)), Shuffle((2, 0, 1))):
        value = network.add(layer, value)
    network.output("y", value)
    network.prune()
    assert [node.layer for node in network.nodes] == [Shuffle((1, 2, 0), (2, 6, 2), (2, 0, 1))]


def test_shuffles_whose_sizes_are_an_input_stay_apart():
    network = Network("net")
    value = network.input("x", spec("float32[batch, 3]"))
    shape = network.add(Shape(), value)
    for layer, *sizes in [(Shuffle((1, 0)),), (Shuffle(sizes=value.spec.shape), shape), (Shuffle((1, 0)),)]:
        value = network.add(layer, value, *sizes)
    network.output("y", value)
    assert kinds(network) == ["Shape", "Shuffle", "Shuffle", "Shuffle"]
    x = torch.rand(2, 3)
    found = run(network, {"x": x}, Constants(network, NoTensors()))["y"]
    assert torch.equal(found, x.mT.reshape(2, 3).mT)


def test_pruning_keeps_what_outputs_need():
    network, x = network_of_x()
    used = network.add(Unary("EXP"), x)
    network.add(Unary("ABS"), used)
    network.output("y", network.add(Unary("SIN"), used))
    network.prune()
    assert [node.layer for node in network.nodes] == [Unary("EXP"), Unary("SIN")]
    assert list(network.inputs) == ["x"]


def test_a_pruned_layer_can_be_added_again():
    network, x = network_of_x()
    network.output("y", network.add(Unary("EXP"), x))
    network.add(Unary("ABS"), x)
    network.prune()
    network.output("z", network.add(Unary("ABS"), x))
    assert network.add(Unary("EXP"), x).name == network.outputs["y"]
    check(network)
    assert kinds(network) == ["Unary", "Unary"]


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
    assert network.add_many(Halves(), x) == (first, second)
    network.output("y", network.add(ElementWise("SUB"), second, first))
    network.prune()
    check(network)
    found = run(network, {"x": X}, Constants(network, NoTensors()))["y"]
    assert torch.equal(found, torch.full((3, 4), 12.0))


def test_a_cast_is_not_taken_for_another():
    network, x = network_of_x()
    assert network.add(Cast(torch.float16), x) != network.add(Cast(torch.bfloat16), x)
